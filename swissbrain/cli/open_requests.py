"""Open requests of waiting runs as text for people: what is asked, and the exact call that an approval allows."""

from collections.abc import Iterator

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from swissbrain.agent import OpenRequest
from swissbrain.cli.screen import line
from swissbrain.cli.terminal import date_time, plain, printable_json

_ARGUMENT, _FOLDED, _JSON = "      │ ", "      ┊ ", " json │ "
_MIN_WIDTH = 10
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Printable characters that look like nothing or like a space."""
_ENDS = {"deny": "then the run continues without an answer", "fail": "then the run fails"}
_DENIED = "then the call is denied"


def request_text(request: OpenRequest, screen: Console) -> Text:
    """Return a request as lines that fit the screen, with all that the API has of its arguments.

    Each row of the question and of an argument has a mark before it, so that none of them can forge other lines. A line
    of an argument with characters that nobody sees is a JSON string, in which these are escaped.
    """
    lines = [Text.assemble((plain(request.kind), "bold magenta"), " ", line(request.id))]
    lines += _wrapped("  ? ", request.question, screen)
    for number, choice in enumerate(request.choices, 1):
        lines += _wrapped(f"  {number}) ", choice, screen)
    if request.tool is not None:
        lines.append(Text(f"  {_exact(request.tool)[1]}", "bold"))
    for name, value in (request.args or {}).items():
        lines.append(Text(f"    {_exact(name)[1]}", "dim"))
        lines += _argument(value, screen)
    if request.truncated:
        lines.append(Text("  the whole is longer than what is shown here", "yellow"))
    is_denied = (request.kind, request.on_expiry) == ("approval", "deny")
    end = _DENIED if is_denied else _ENDS.get(request.on_expiry, request.on_expiry)
    lines.append(Text(f"  open until {date_time(request.expires_ms)}; {plain(end)}", "dim"))
    return Text("\n").join(lines)


def how_to_answer(run_id: str, request: OpenRequest) -> str:
    """Return the commands that answer a request."""
    if request.kind == "approval":
        return f"'swissbrain approve {run_id} {request.id}', or 'deny' instead of 'approve', answers"
    return f"'swissbrain resume {run_id} TEXT --request {request.id}' answers"


def _argument(value: object, screen: Console) -> Iterator[Text]:
    parts = [_exact(part) for part in value.split("\n")] if isinstance(value, str) else [(_ARGUMENT, _json(value))]
    for mark, shown in parts:
        for index, piece in enumerate(_folded(shown, _room(len(mark), screen))):
            yield Text.assemble((_FOLDED if index else mark, "dim"), piece)


def _exact(text: str) -> tuple[str, str]:
    """Return one line as it is, or as JSON if a terminal would not show each of its characters; and the mark for it."""
    return (_ARGUMENT, text) if _is_visible(text) else (_JSON, _json(text))


def _json(value: object) -> str:
    return printable_json(msgspec.json.encode(value).decode(), _is_visible)


def _is_visible(text: str) -> bool:
    # Marks that combine with the character before them have no width; some of them are never seen.
    return text.isprintable() and all(char.isascii() or (cell_len(char) and char not in _BLANK) for char in text)


def _folded(text: str, width: int) -> Iterator[str]:
    """Yield the text in pieces of at most `width` columns, at least one. Nothing of it is lost, unlike in rich's."""
    start = used = 0
    for index, char in enumerate(text):
        used += cell_len(char)
        if used > width:
            yield text[start:index]
            start, used = index, cell_len(char)
    yield text[start:]


def _wrapped(mark: str, text: str, screen: Console) -> Iterator[Text]:
    for row in Text(plain(text)).wrap(screen, _room(len(mark), screen), overflow="fold"):
        yield Text.assemble((mark, "dim"), row)


def _room(taken: int, screen: Console) -> int:
    return max(screen.width - taken, _MIN_WIDTH)
