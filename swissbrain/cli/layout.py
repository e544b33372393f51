"""Layout of tables for the width of the terminal: an id or a path, which people copy, is never cut or broken."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2
MIN_FLEXIBLE = 16
"""Width down to which a flexible column of a table is truncated; below, each row takes several lines."""


@dataclass(frozen=True)
class Column:
    """Column of a table. `flexible`: may be truncated, with a mark; `right`: aligned to the right."""

    name: str
    flexible: bool = False
    right: bool = False


class Rows:
    """Table with a row for each record, whose first cell is its id or path.

    Where the terminal is too narrow for that, each record takes several lines: the first cell whole, then the others
    with their names, as many to a line as fit.
    """

    def __init__(self, columns: Sequence[Column], rows: Iterable[Sequence[Text]]) -> None:
        self._columns = columns
        self._rows = [list(row) for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, or the lines of all records."""
        width = options.max_width
        natural = [
            max(cell_len(column.name), *(_width(row[index]) for row in self._rows), 0)
            for index, column in enumerate(self._columns)
        ]
        flexible = [
            min(each, MIN_FLEXIBLE) if column.flexible else each
            for each, column in zip(natural, self._columns, strict=True)
        ]
        gaps = GAP * (len(natural) - 1)
        if sum(flexible) + gaps <= width:
            spare = width - sum(flexible) - gaps
            widths = []
            for each, least in zip(natural, flexible, strict=True):
                widths.append(min(each, least + spare))
                spare -= widths[-1] - least
            yield self._table(widths)
        else:
            for row in self._rows:
                yield from self._lines(row, width)

    def _table(self, widths: Sequence[int]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, GAP, 0, 0))
        for column, width in zip(self._columns, widths, strict=True):
            justify = "right" if column.right else "left"
            table.add_column(column.name, no_wrap=True, overflow="ellipsis", justify=justify, width=width)  # type: ignore[arg-type]
        for row in self._rows:
            table.add_row(*row)
        return table

    def _lines(self, row: Sequence[Text], width: int) -> Iterator[Text]:
        line = _whole(row[0])
        for column, cell in zip(self._columns[1:], row[1:], strict=True):
            if not cell.plain:
                continue
            piece = Text.assemble((f"{column.name} ", "dim"), cell)
            if cell_len(line.plain) + GAP + _width(piece) > width:
                if line.plain:
                    yield line
                line = _whole(Text(" " * GAP))
                piece.truncate(max(width - GAP, 1), overflow="ellipsis")
                line.append_text(piece)
            else:
                line.append(" " * GAP).append_text(piece)
        yield line


class Details:
    """Table of names and values of one record. Values are folded; on a narrow terminal each begins on its own line."""

    def __init__(self, rows: Iterable[tuple[str | Text, str | Text]]) -> None:
        self._rows = [(Text.assemble(name), Text.assemble(value)) for name, value in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, or the lines of all pairs."""
        names = max((_width(name) for name, _ in self._rows), default=0)
        whole = max((_longest_word(value) for _, value in self._rows[:1]), default=0)
        if names + GAP + whole <= options.max_width and names <= options.max_width // 2:
            table = Table(box=None, pad_edge=False, show_header=False, show_edge=False, padding=(0, GAP, 0, 0))
            table.add_column(no_wrap=True, style="bold")
            table.add_column(overflow="fold")
            for name, value in self._rows:
                table.add_row(name, value)
            yield table
        else:
            for index, (name, value) in enumerate(self._rows):
                yield Text.assemble((name.plain, "bold"), overflow="fold")
                folded = value.wrap(console, max(options.max_width - GAP, 1), overflow="fold")
                for line in [value] if index == 0 else folded:  # the first value is the id
                    yield _whole(Text(" " * GAP).append_text(line))


def _width(text: Text) -> int:
    return max((cell_len(line) for line in text.plain.split("\n")), default=0)


def _longest_word(text: Text) -> int:
    return max((cell_len(word) for word in text.plain.split()), default=0)


def _whole(text: Text) -> Text:
    """Return a copy that is printed as it is: a terminal wraps a longer line without adding anything to it."""
    copy = text.copy()
    copy.no_wrap, copy.overflow = True, "ignore"
    return copy
