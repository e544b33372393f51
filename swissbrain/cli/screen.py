"""Console of the command, and styled text for it."""

import os
import sys

from rich.console import Console
from rich.text import Text

from swissbrain.cli.terminal import plain

STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "waiting": "magenta"}


def console(*, stderr: bool = False) -> Console:
    """Return the console to print to, with colours on a terminal, or with FORCE_COLOR."""
    if (sys.stderr if stderr else sys.stdout).isatty():
        return Console(stderr=stderr, highlight=False)
    # In a file or a pipe, a table wrapped at 80 columns could not be searched line by line, and nothing is drawn again,
    # also where FORCE_COLOR asks for colours, which the library takes for a terminal.
    return Console(
        stderr=stderr,
        highlight=False,
        width=1000,
        force_terminal=False,
        color_system="standard" if os.environ.get("FORCE_COLOR") else None,
    )


def cell(text: object) -> Text:
    """Return the text for a cell of a table, where rich would read a str as markup."""
    return Text(plain(text))


def line(text: object) -> Text:
    """Return the text on one line, for a cell of a row; each line break is shown as a space."""
    shown = text.copy() if isinstance(text, Text) else cell(text)
    return Text(" ").join(shown.split("\n")) if "\n" in shown.plain else shown


def status(name: str) -> Text:
    """Return a status in its colour."""
    return Text(plain(name), STYLES.get(name, ""))
