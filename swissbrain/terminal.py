"""What is safe and readable on a terminal."""

import re
from datetime import datetime
from functools import lru_cache

from rich.console import Console
from rich.text import Text

STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "waiting": "magenta"}
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: object) -> str:
    """The text without terminal escapes; other control characters, and those that turn the writing around, become �."""
    return _CONTROLS.sub("\ufffd", _ESCAPES.sub("", str(text).replace("\r\n", "\n")))


def cut(text: str, most: int) -> str:
    """The text, or as much of it as fits into `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def console(*, stderr: bool = False) -> Console:
    """Where to print: in colours on a terminal, and as wide as it takes where there is none."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=1000)


def cell(text: object) -> Text:
    """The text for a table, where a str would be read as markup."""
    return Text(plain(text))


def status(name: str) -> Text:
    """A status in its colour."""
    return Text(plain(name), STYLES.get(name, ""))


def duration(ms: float) -> str:
    """Milliseconds as a person says them."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes} min {seconds} s"


def moment(ms: int) -> str:
    """Milliseconds since the epoch as local date and time."""
    return _local(ms // 1000, "%Y-%m-%d %H:%M:%S")


def clock(ms: int) -> str:
    """Milliseconds since the epoch as local time of the day."""
    return f"{_local(ms // 1000, '%H:%M:%S')}.{ms % 1000:03}"


@lru_cache(maxsize=16)
def _local(seconds: int, form: str) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime(form)
    except (OverflowError, ValueError, OSError):  # no year that there is
        return f"{seconds}"
