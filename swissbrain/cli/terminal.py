"""Text that is safe and readable on a terminal."""

import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache

import typer

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # colours and the like, titles and links
    r"|[PX^_][^\x07\x1b]*\x1b\\|[ -/]+[0-~]|[0-OQ-WYZ\\`-~])"  # other texts, character sets, single functions
)
_INVISIBLE = str.maketrans({"\a": "", "\x0e": "", "\x0f": "", "\v": " ", "\f": " "})
"""Bell and character sets, and what a printer takes for a new line or page."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: object) -> str:
    """Return the text without terminal escapes; replace other control and text-direction characters by �.

    Texts of agents and programs pass through here, because a terminal obeys what it is sent: an escape sequence could
    forge lines, set the clipboard or hide text.
    """
    return _CONTROLS.sub("\ufffd", _ESCAPES.sub("", str(text).replace("\r\n", "\n")))


def printed(text: str) -> str:
    """Return the text of a program's output as a terminal shows it, which obeys backspaces; nothing else is obeyed."""
    text = _ESCAPES.sub("", text).translate(_INVISIBLE)
    if "\b" in text:
        shown, column = list[str](), 0
        for piece in re.split("(\b+)", text):
            if piece.startswith("\b"):
                column = max(0, column - len(piece))
            else:
                shown[column : column + len(piece)] = piece
                column += len(piece)
        text = "".join(shown)
    return plain(text)


def printable_json(text: str, is_shown: Callable[[str], bool] = str.isprintable) -> str:
    """Return JSON whose strings have an escape for every character that is not shown; its value is the same.

    JSON itself escapes only the control characters below a space. A terminal also obeys those from U+007F to U+009F
    and the marks of text direction, and programs that read lines may end one at U+2028.
    """
    if is_shown(text):
        return text
    return "".join(char if is_shown(char) else _json_escape(char) for char in text)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def truncate(text: str, max_chars: int) -> str:
    """Return the text, truncated to `max_chars` characters."""
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def note(line: str) -> None:
    """Print one line on stderr."""
    typer.echo(" ".join(f"swissbrain: {plain(line)}".split()), err=True)


def duration(ms: float) -> str:
    """Return milliseconds in units that suit people; options accept the same notation, such as `1h 5m`."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}m {seconds}s"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours}h" if days else f"{hours}h {minutes}m"


def date_time(ms: int) -> str:
    """Return milliseconds since the epoch as local date and time."""
    return _local(ms // 1000, "%Y-%m-%d %H:%M:%S")


def clock(ms: int) -> str:
    """Return milliseconds since the epoch as local time of day."""
    return f"{_local(ms // 1000, '%H:%M:%S')}.{ms % 1000:03}"


def timestamp(ms: int) -> str:
    """Return milliseconds since the epoch as local date and time with the offset of the time zone (ISO 8601)."""
    return f"{_local(ms // 1000, '%Y-%m-%dT%H:%M:%S')}.{ms % 1000:03}{_local(ms // 1000, '%z')}"


@lru_cache(maxsize=16)
def _local(seconds: int, form: str) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime(form)
    except (OverflowError, ValueError, OSError):  # a year that datetime cannot convert
        return f"{seconds}"
