"""Events of a log as lines for people. Escape sequences in the output of agents never reach the terminal."""

from collections import deque
from typing import Self, TypeAlias

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from swissbrain.cli.event_text import TEXT_STYLES, describe, style
from swissbrain.cli.terminal import clock, plain, printed, timestamp
from swissbrain.models import Event, Gap

_TAB_CELLS = 8
MAX_DRAWN = 100
"""Lines that are remembered, because one of them may be drawn again."""
_DrawnLine: TypeAlias = tuple[tuple[object, ...], Text]
"""Line that was printed, and the text that it belongs to."""
_ENDS_OF_REPLIES = {"model.started", "model.retry", "run.requeued", "run.resumed", "run.retried"}
"""Types after which the deltas before are void, if no message has repeated them."""


class EventLines:
    """Printer of events, one line each. A context manager: its exit ends the last line, which may still be open.

    The parts of a long text, and the deltas of a model's reply, continue the line of the first part, as long as no
    other event comes between. A reply that was shown delta by delta is not shown again as a message; deltas that have
    become void stay, and the next reply begins on a new line. The success of a tool is not shown, because the end of
    its step shows it. An event with unexpected fields is shown raw. A line that replaces an earlier one is drawn in
    its place on a terminal as long as only output has followed that one, and at the end anywhere else.
    """

    def __init__(self, console: Console, *, timestamps: bool = False) -> None:
        """`timestamps`: show date and time zone beside the time of day."""
        self._console = console
        self._time = timestamp if timestamps else clock
        self._indent = len(self._time(0)) + 2
        self._redraws = console.is_terminal and not console.is_dumb_terminal
        self._open_text: tuple[object, ...] | None = None
        self._drawn: deque[_DrawnLine] = deque(maxlen=MAX_DRAWN)
        self._column = 0
        """Cells of the last line without its time and mark."""
        self._reply: tuple[object, ...] | None = None
        """Exchange of the deltas in `_deltas`, which its message is still to repeat."""
        self._deltas = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_line()

    @property
    def is_line_open(self) -> bool:
        """True if the last line printed may still be continued."""
        return self._open_text is not None

    def show(self, item: Event | Gap) -> None:
        """Print an event or a gap."""
        if isinstance(item, Gap) or item.type in _ENDS_OF_REPLIES:
            self._reply = None
        if isinstance(item, Gap):
            self._end_line()
            self._drawn.clear()
            missing = f"{'':{self._indent}}events {item.first} to {item.last} are no longer kept"
            self._console.print(Text(missing, "yellow"), soft_wrap=True)
        elif item.type in TEXT_STYLES and isinstance(item.data.get("text"), str):
            self._show_text(item, item.data["text"])
        else:
            self._end_line()
            if item.type != "model.started" and (item.type, item.data.get("status")) != ("tool.finished", "succeeded"):
                self._drawn.clear()
                self._print(self._format(item))

    def _show_text(self, item: Event, text: str) -> None:
        more = item.data.get("more") is True
        if item.type == "model.message":
            text = self._new_part(item, text, more=more)
        if text or item.type != "model.message":
            self._print_text(item, text, more=more or item.type == "model.delta")
        elif not more:
            self._end_line()
        if item.type == "model.message" and not more:
            self._reply = None
            if problem := item.data.get("problem"):
                self._end_line()
                self._drawn.clear()
                self._print(Text(f"{'':{self._indent}}the reply cannot be used: {plain(problem)}", "yellow"))
        elif item.type == "model.delta" and item.data.get("kind") != "reasoning":
            reply = _exchange(item)
            self._deltas = text if self._reply != reply else self._deltas + text
            self._reply = reply

    def _print_text(self, item: Event, text: str, *, more: bool) -> None:
        names = ("stream", "call", "kind")
        text_id: tuple[object, ...] = (*_exchange(item), item.type, *(item.data.get(name) for name in names))
        shown = self._open_text
        if item.type == "model.message" and shown and shown[2] == "model.delta" and shown[-1] != "reasoning":
            text_id = shown
        replaces = item.type == "tool.output" and item.data.get("replaces_line") is True
        begins = replaces or self._open_text != text_id
        if item.type == "tool.output":
            text = printed(text)
            if self._redraws:
                self._column = 0 if begins else self._column
                text = self._without_tabs(text)
        line = Text(plain(text), style(item))
        below: list[_DrawnLine] = []
        if begins:
            self._end_line()
            line = self._format(msgspec.structs.replace(item, data={**item.data, "text": text}))
            if replaces:
                below = self._erase(text_id, more=more)
            self._drawn.append((text_id, line))
        else:
            self._drawn[-1][1].append_text(line)
        self._print(line, end="" if more else "\n")
        self._open_text = text_id if more else None
        for drawn in below:
            self._drawn.append(drawn)
            self._print(drawn[1])

    def _new_part(self, message: Event, text: str, *, more: bool) -> str:
        """Return the part of a reply's text that its deltas have not shown, all of it if they differ from the text."""
        if self._reply != _exchange(message):
            self._end_line()
            return text
        if self._deltas.startswith(text):
            # A long reply is split into several messages: this one covers the next part of the deltas.
            self._deltas = self._deltas[len(text) :]
            return ""
        if text.startswith(self._deltas):
            # The last piece of a reply is often in its message alone.
            text, self._deltas = text[len(self._deltas) :], ""
            return text
        self._end_line()
        self._reply = None
        return text

    def _erase(self, text_id: tuple[object, ...], *, more: bool) -> list[_DrawnLine]:
        """Erase the last line of the text on a terminal, and all below it; return those, which are to be drawn again.

        A line of which `more` follows has to be the last one. All lines have ended, and may fill several rows.
        """
        below: list[_DrawnLine] = []
        lines = list(self._drawn) if self._redraws else []
        while lines and lines[-1][0] != text_id:
            below.insert(0, lines.pop())
        found = [*lines[-1:], *below]
        rows = sum(_rows(line.plain, self._console.width) for _, line in found)
        # A row that has left the terminal at its top cannot be erased.
        is_there = not below or (rows < self._console.height and not more)
        if not lines or not is_there or any("\n" in line.plain for _, line in found):
            return []
        for _ in found:
            self._drawn.pop()
        erase = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)]
        self._console.control(Control(*erase * min(rows, self._console.height - 1)))
        return below

    def _without_tabs(self, text: str) -> str:
        """Return the text that follows in the last line, with spaces up to the columns of its tabs.

        A terminal does not go to the next row for a tab, so that the rows of a line with tabs could not be counted.
        """
        first, *others = text.split("\t")
        self._column += cell_len(first)
        for piece in others:
            spaces = _TAB_CELLS - self._column % _TAB_CELLS
            first += " " * spaces + piece
            self._column += spaces + cell_len(piece)
        return first

    def _end_line(self) -> None:
        if self._open_text is not None:
            self._console.print()
        self._open_text = None

    def _format(self, event: Event) -> Text:
        return Text.assemble((self._time(event.ts), "dim"), "  ", describe(event))

    def _print(self, line: Text, end: str = "\n") -> None:
        if "\n" in line.plain:  # indented, so that a text of several lines cannot forge other events
            line = Text(f"\n{'':{self._indent}}").join(line.split("\n", allow_blank=not end))
        if self._console.color_system is None:
            # Without colours, writing directly gives the same output as rich in a tenth of the time; logs can be long.
            self._console.file.write(line.plain + end)
            self._console.file.flush()
        else:
            self._console.print(line, soft_wrap=True, end=end)


def _rows(line: str, width: int) -> int:
    """Return the number of rows that a terminal needs for a line. A wide character is never at the end of two rows."""
    if line.isascii():
        return max(1, -(-len(line) // width))
    rows, column = 1, 0
    for char in line:
        cells = cell_len(char)
        if column + cells > width:
            rows, column = rows + 1, 0
        column += cells
    return rows


def _exchange(event: Event) -> tuple[object, object]:
    """Return the step and the number of an exchange with models, which no other exchange has."""
    return event.step, event.data.get("n")
