"""Console of the command, and styled text for it."""

from rich.console import Console
from rich.text import Text

from swissbrain.cli.terminal import plain

STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "waiting": "magenta"}


def console(*, stderr: bool = False) -> Console:
    """Return the console to print to, with colours on a terminal."""
    created = Console(stderr=stderr, highlight=False)
    # In a file or a pipe, a table wrapped at 80 columns could not be searched line by line.
    return created if created.is_terminal else Console(stderr=stderr, highlight=False, width=1000)


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
