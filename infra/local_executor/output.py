"""Output of a program: written to a file of limited size, and passed on line by line while the program runs."""

import asyncio
import codecs
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from infra.contract.execution import LineEnd, LinePart

PART_CHARS = 4096
"""Maximum length of a part; a longer line is passed on in several parts. At most 16 KB of UTF-8."""
SILENCE_S = 0.2
"""Time without output after which the begin of a line is passed on, such as a prompt that waits for an answer."""
AGE_S = 0.5
"""Time after which the begin of a line is passed on without such a silence, such as dots that tell of progress."""
STATE_S = 0.2
"""Shortest time between two states of a line that the program overwrites, such as those of a progress bar."""
STATES = 100
"""Number of states after which the time between two of them grows with their number, up to ten times STATE_S.
Otherwise a progress bar of ten minutes would use up what a log holds of one call."""
FLOOD_BYTES_S = 16 * 1024 * 1024
"""Rate at which the output of one program is read in the long run. A faster program waits."""
BURST_BYTES = 4 * FLOOD_BYTES_S
"""Output that is read at any rate. A program whose output is worth storing seldom prints more."""
PART_BYTES = 2048
"""Bytes that take as long to read as one part takes to be logged: floods of short lines cost the most."""
_CHUNK_BYTES = 64 * 1024
_PAUSE_S = 0.02
_LOOK_S = 0.01
_ESCAPE_CHARS = 64
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*)?")

_RETURN = re.compile(r"\x1b\[(?:[0-2]?K(?:\x1b\[[0-2]?K){0,2}(?:\r|\x1b\[(?:[01]?G|\d{3,4}D))|[01]?G|\d{3,4}D)")
"""Moves of the cursor to the first column, which begin a line anew, as node's do. A sequence before one that erases the
line would be part of the state that it erases."""

OnPart: TypeAlias = Callable[[LinePart], Awaitable[bool]]
"""Receiver of parts. Returns False if it needs no further parts."""


class LineSplitter:
    """Splits a stream of bytes into lines of text. Bytes that are not UTF-8 become U+FFFD.

    A carriage return, unless a line end follows, lets the program overwrite the line, and so does any other move to its
    first column: the text between two of them is a state of the line. Of these states at most one in STATE_S is passed
    on, and always the last. Each one is a line that replaces the previous one. The begin of any other line is passed on
    after SILENCE_S without output, or AGE_S after its first character. Times are in seconds, by the same monotonic
    clock in all calls.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""  # of the line, or of its current state, without what was passed on with `more`
        self._is_open = False  # the last part had `more`
        self._is_overwritten = False
        self._state = ""  # the last complete state, unless it was passed on
        self._shown: str | None = None  # the state that was passed on last
        self._has_return = False  # the output ends with a carriage return: a line feed may follow
        self._states = 0  # passed on so far
        self._text_s = self._begun_s = self._shown_s = -SILENCE_S

    @property
    def due_s(self) -> float | None:
        """Time at which `due` has a part to pass on; None if it has none until more output comes."""
        if self._has_return:
            return self._text_s + SILENCE_S
        next_state_s = self._shown_s + STATE_S * min(10.0, max(1.0, self._states / STATES))
        if self._state:
            return next_state_s
        if self._text and self._text != self._shown:
            due_s = min(self._text_s + SILENCE_S, self._begun_s + AGE_S)
            return max(due_s, next_state_s) if self._is_overwritten else due_s
        return None

    def feed(self, data: bytes, now_s: float, *, final: bool = False) -> list[LinePart]:
        """Return the lines that are now complete, without line ends. `final` completes the last line too."""
        begun = self._text + ("\r" if self._has_return else "")
        text = begun + self._decoder.decode(data, final)
        *lines, text = text.split("\n")
        lines, text = [_with_returns(line, "\r") for line in lines], _with_returns(text)
        if lines or not begun or "\r" in text:
            self._begun_s = now_s
        self._text_s = now_s
        parts = [part for line in lines for part in self._end_line(line, now_s)]
        self._has_return = text.endswith("\r") and not (final or self._is_overwritten)
        self._text = self._take_states(text[:-1] if self._has_return else text, parts)
        if final and (self._text or self._state or self._is_open):
            return parts + self._end_line(self._text, now_s, "")
        # Pass on an unfinished long line early: a program may print megabytes without a line end.
        while len(self._text) > PART_CHARS:
            end = _end_of_part(self._text, 0)
            parts.append(self._open_part(self._text[:end]))
            self._text, self._begun_s = self._text[end:], now_s
        return parts + self.due(now_s)

    def due(self, now_s: float) -> list[LinePart]:
        """Return what is to be passed on before its line ends: the begin of a line, or the state of one."""
        due_s = self.due_s
        if due_s is None or due_s > now_s:
            return []
        if self._has_return:
            self._has_return = False
            parts: list[LinePart] = []
            self._text = self._take_states(f"{self._text}\r", parts)
            return parts + self.due(now_s)
        if self._is_overwritten:
            # The current state may be incomplete as long as the program prints.
            is_silent = bool(self._text) and self._text_s + SILENCE_S <= now_s
            return self._show(self._text if is_silent else self._state or self._text, now_s)
        text, self._text = self._text, ""
        return [self._open_part(text)]

    def _end_line(self, line: str, now_s: float, end: LineEnd = "\n") -> list[LinePart]:
        parts: list[LinePart] = []
        if "\r" in line:
            end = "\r" if line.endswith("\r\r") or not end else "\r\n" if line.endswith("\r") else end
            line = self._take_states(line.rstrip("\r"), parts)
        if self._is_overwritten:
            last = line or self._state
            if last and last != self._shown:
                parts += self._show(last, now_s)
            elif self._shown is None:
                parts.append(LinePart("", end="\r"))
        else:
            *begin, last_part = _split(line)
            parts += [*begin, last_part._replace(end=end)]
        self._text = self._state = ""
        self._is_open = self._is_overwritten = False
        self._shown = None
        return parts

    def _take_states(self, text: str, parts: list[LinePart]) -> str:
        """Return the text after the last carriage return, and keep the last state before it."""
        states, overwritten, text = text.rpartition("\r")
        if not overwritten:
            return text
        if self._is_open:
            # The begin of this state was passed on, so its end has to follow. The next state replaces it as a whole.
            end, _, states = states.partition("\r")
            parts += [part._replace(end="\r") for part in _split(end)]
            self._is_open, self._shown = False, ""
        self._is_overwritten = True
        # Not split: a program can print megabytes of states a second.
        _, _, state = states.rstrip("\r").rpartition("\r")
        if state:
            self._state = "" if state == self._shown else state
        return text

    def _show(self, state: str, now_s: float) -> list[LinePart]:
        replaces = self._shown is not None
        self._state, self._shown, self._shown_s, self._begun_s = "", state, now_s, now_s
        self._states += 1
        first, *others = [part._replace(end="\r") for part in _split(state)]
        return [first._replace(replaces=replaces), *others]

    def _open_part(self, text: str) -> LinePart:
        """Return a part of a line that has not ended."""
        replaces = self._shown is not None and not self._is_open
        end: LineEnd = "\r" if self._is_overwritten else "\n"
        self._is_open, self._is_overwritten, self._state = True, False, ""
        return LinePart(text, more=True, replaces=replaces, end=end)


class Pace:
    """Limit for the output of one program. A program that prints for ever must leave the worker to the other runs.

    `end` lifts the limit once the program has ended, because the rest of its output is small.
    """

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._free_bytes: float = BURST_BYTES
        self._filled_s = self._clock()
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Lift the limit."""
        self._ended.set()

    async def take(self, size_bytes: int) -> None:
        """Wait as long as reading this much output should take, if the program has printed more than BURST_BYTES."""
        self._free_bytes -= size_bytes
        if self._free_bytes < 0 and not self._ended.is_set():
            now_s = self._clock()
            self._free_bytes = min(BURST_BYTES, self._free_bytes + FLOOD_BYTES_S * (now_s - self._filled_s))
            self._filled_s = now_s
            if self._free_bytes < 0:
                # Few long pauses cost less than many short ones.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE_S - self._free_bytes / FLOOD_BYTES_S):
                        await self._ended.wait()


class OutputCapture:
    """Capture of one output stream: a file with its first `limit` bytes, and the count of all its bytes.

    The streams of one program share its pace.
    """

    def __init__(self, path: Path, limit: int, pace: Pace) -> None:
        self.path = path
        self.total_bytes = 0
        self._limit = limit
        self._pace = pace

    async def read_all(self, source: asyncio.StreamReader, on_part: OnPart) -> None:
        """Read until the stream ends. Awaits `on_part` for each part of a line, so a slow log slows the program."""
        clock = asyncio.get_running_loop().time
        lines: LineSplitter | None = LineSplitter()
        data: bytes | None = None
        with self.path.open("wb") as file:
            while data != b"":
                data = await _read(source, lines.due_s if lines else None)
                if data:
                    file.write(data[: max(0, self._limit - self.total_bytes)])
                    self.total_bytes += len(data)
                    await self._pace.take(len(data))
                if lines is None:
                    continue
                now_s = clock()
                parts = lines.due(now_s) if data is None else lines.feed(data, now_s, final=not data)
                for part in parts:
                    if not await on_part(part):
                        lines = None
                        break
                    await self._pace.take(PART_BYTES)


async def _read(source: asyncio.StreamReader, until_s: float | None) -> bytes | None:
    """Return the next output; None if there is none until the given time of the event loop, b"" at the end."""
    with suppress(TimeoutError):
        async with asyncio.timeout_at(until_s):
            return await source.read(_CHUNK_BYTES)
    # A busy event loop may have seen the time pass before it has seen the output.
    with suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_S):
            return await source.read(_CHUNK_BYTES)
    return None


def _with_returns(text: str, line_end: str = "") -> str:
    """Return the text with each move to the first column as two carriage returns, which are no part of a line end.

    A return at the end that may be the begin of the line end, `line_end`, is no such move, whatever precedes it. Only
    in the end of a long text, because a program can print megabytes of states a second.
    """
    if "\x1b" not in text:
        return text
    begin = max(0, len(text) - 2 * PART_CHARS)
    end = len(text.removesuffix(line_end))
    return text[:begin] + _RETURN.sub("\r\r", text[begin:end]) + text[end:]


def _split(line: str) -> list[LinePart]:
    parts, start = list[LinePart](), 0
    while len(line) - start > PART_CHARS:
        end = _end_of_part(line, start)
        parts.append(LinePart(line[start:end], more=True))
        start = end
    return [*parts, LinePart(line[start:])]


def _end_of_part(text: str, start: int) -> int:
    """Return where a part of a longer text ends: not within an escape sequence, which no client could recognise."""
    end = start + PART_CHARS
    escape = text.rfind("\x1b", end - _ESCAPE_CHARS, end)
    return escape if escape > start and _UNFINISHED.fullmatch(text, escape, end) else end
