"""Screen of a terminal: the rows that are seen after an output."""

import re

from rich.cells import cell_len

_PIECE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])|(.)", re.DOTALL)
_TAB = 8


def screen_rows(output: str, width: int) -> list[str]:
    """Return the rows without spaces at their ends, and without empty rows at the end.

    Knows line ends, carriage returns, tabs, wide characters, and the sequences that move the cursor up, erase a row, or
    set colours. No row leaves the screen at its top.
    """
    rows, row, column = [[" "] * width], 0, 0
    for match in _PIECE.finditer(output):
        argument, sequence, char = match.groups()
        cells = cell_len(char) if char else 0
        if char == "\n" or (cells and column + cells > width):  # after the last column, the next character wraps
            row, column = row + 1, 0
            rows.extend([[" "] * width] * (row == len(rows)))
        if char == "\r":
            column = 0
        elif char == "\t":
            column = min(width - 1, (column // _TAB + 1) * _TAB)
        elif sequence == "A":
            row -= int(argument or 1)
        elif sequence == "K":
            assert argument == "2"
            rows[row] = [" "] * width
        elif cells:
            rows[row] = [*rows[row][:column], char, *[""] * (cells - 1), *rows[row][column + cells :]]
            column += cells
    return "\n".join("".join(each).rstrip() for each in rows).rstrip("\n").split("\n")
