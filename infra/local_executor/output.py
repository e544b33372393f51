"""Output of a program: written to a file of limited size, and passed on line by line while the program runs."""

import asyncio
import codecs
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

PART_CHARS = 4096
"""Maximum length of a part; a longer line is passed on in several parts. At most 16 KB of UTF-8."""
_CHUNK_BYTES = 64 * 1024

LinePart: TypeAlias = tuple[str, bool]
"""Text of a line or of a part of it, and True if the line continues in the next part."""
OnPart: TypeAlias = Callable[[str, bool], Awaitable[None]]


class LineSplitter:
    """Splits a stream of bytes into lines of text. Bytes that are not UTF-8 become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> list[LinePart]:
        """Return the lines that are now complete, without line ends. `final` completes the last line too."""
        self._rest += self._decoder.decode(data, final)
        *lines, self._rest = self._rest.split("\n")
        if final and self._rest:
            lines.append(self._rest)
            self._rest = ""
        parts = [part for line in lines for part in _split_line(line.removesuffix("\r"))]
        # Pass on an unfinished long line early: a program may print megabytes without a line end.
        while len(self._rest) > PART_CHARS:
            parts.append((self._rest[:PART_CHARS], True))
            self._rest = self._rest[PART_CHARS:]
        return parts


class OutputCapture:
    """Capture of one output stream: a file with its first `limit` bytes, and the count of all its bytes."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.total_bytes = 0
        self._limit = limit

    async def read_all(self, source: asyncio.StreamReader, on_part: OnPart) -> None:
        """Read until the stream ends. Awaits `on_part` for each part of a line, so a slow log slows the program."""
        lines = LineSplitter()
        with self.path.open("wb") as file:
            while data := await source.read(_CHUNK_BYTES):
                file.write(data[: max(0, self._limit - self.total_bytes)])
                self.total_bytes += len(data)
                for part in lines.feed(data):
                    await on_part(*part)
        for part in lines.feed(b"", final=True):
            await on_part(*part)


def _split_line(line: str) -> list[LinePart]:
    starts = range(0, max(1, len(line)), PART_CHARS)
    return [(line[at : at + PART_CHARS], at != starts[-1]) for at in starts]
