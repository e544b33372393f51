"""Open requests of waiting runs as text for people: what is asked, and the exact call that an approval allows."""

from collections.abc import Iterator

import msgspec
from rich.cells import chop_cells
from rich.console import Console
from rich.text import Text

from swissbrain.agent import OpenRequest
from swissbrain.cli.terminal import date_time, line, plain, printable_json

_ARGUMENT, _FOLDED, _JSON = "      │ ", "      ┊ ", " json │ "
_MIN_WIDTH = 10
_ENDS = {"deny": "then the run goes on without an answer", "fail": "then the run fails"}


def request_text(request: OpenRequest, screen: Console) -> Text:
    """Return a request as lines that fit the screen, with all that the API has of its arguments.

    Each row of the question and of an argument has a mark before it, so that none of them can forge other lines. A line
    of an argument with characters that are not printable is a JSON string, so that none of them is hidden.
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
    end = _ENDS.get(request.on_expiry, request.on_expiry)
    lines.append(Text(f"  open until {date_time(request.expires_ms)}; {plain(end)}", "dim"))
    return Text("\n").join(lines)


def how_to_answer(run_id: str, request: OpenRequest) -> str:
    """Return the commands that answer a request."""
    if request.kind == "approval":
        return f"'swissbrain approve {run_id} {request.id}', or 'deny' instead of 'approve', answers"
    return f"'swissbrain resume {run_id} TEXT --request {request.id}' answers"


def _argument(value: object, screen: Console) -> Iterator[Text]:
    if isinstance(value, str):
        parts = [_exact(part) for part in value.split("\n")]
    else:
        parts = [(_ARGUMENT, printable_json(msgspec.json.encode(value).decode()))]
    for mark, shown in parts:
        for index, piece in enumerate(chop_cells(shown, _room(len(mark), screen)) or [""]):
            yield Text.assemble((_FOLDED if index else mark, "dim"), piece)


def _exact(text: str) -> tuple[str, str]:
    """Return one line as it is, or as JSON if a terminal would not show each of its characters; and the mark for it."""
    if text.isprintable():
        return _ARGUMENT, text
    return _JSON, printable_json(msgspec.json.encode(text).decode())


def _wrapped(mark: str, text: str, screen: Console) -> Iterator[Text]:
    for row in Text(plain(text)).wrap(screen, _room(len(mark), screen), overflow="fold"):
        yield Text.assemble((mark, "dim"), row)


def _room(taken: int, screen: Console) -> int:
    return max(screen.width - taken, _MIN_WIDTH)
