"""Output of commands."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec
import typer
from rich.console import RenderableType

from swissbrain.cli.answers import Answers, can_ask
from swissbrain.cli.event_lines import EventLines
from swissbrain.cli.exit_codes import OUTCOMES
from swissbrain.cli.explanations import explain
from swissbrain.cli.layout import Details
from swissbrain.cli.results import result_rows
from swissbrain.cli.screen import console
from swissbrain.cli.silence import Reason, with_reason
from swissbrain.cli.terminal import note, printable_json
from swissbrain.errors import ClientError
from swissbrain.models import Event, Gap

if TYPE_CHECKING:
    from swissbrain import Client


def follow_run(
    client: "Client",
    run_id: str,
    *,
    as_json: bool,
    no_input: bool = False,
    timestamps: bool = False,
    after: int = 0,
    **part: Any,
) -> None:
    """Show the log until the run has ended, then exit with the code of its outcome.

    On a terminal the person is asked what the run asks, unless `no_input`. `part`: the arguments of `Client.events`
    that select events.
    """
    events = client.events(run_id, after=after, **part)
    answers = Answers(client, run_id, note, asks=not no_input and not as_json and can_ask())
    types = set()

    def shown(item: Event | Gap) -> None:
        types.add(item.type if isinstance(item, Event) else "")
        answers.note(item)

    try:
        last = show_log(events, as_json=as_json, timestamps=timestamps, reason=Reason(client, run_id), shown=shown)
    except KeyboardInterrupt:
        note(f"the run continues; 'swissbrain logs -f {run_id}' shows it, 'swissbrain cancel {run_id}' stops it")
        raise
    # The outcome comes from the log where possible: the run may have been retried or deleted since.
    outcome = last.data.get("status") if isinstance(last, Event) and last.type == "run.finished" else None
    if outcome and "model.message" in types and not as_json:
        _show_result(client, run_id, str(outcome))
    raise typer.Exit(OUTCOMES.get(str(outcome or client.get_run(run_id).status), 0))


def _show_result(client: "Client", run_id: str, outcome: str) -> None:
    """Print what a model says at the end of a run: the log has it nowhere."""
    try:
        run = client.get_run(run_id)
    except ClientError as exc:
        note(f"{explain(exc)}; 'swissbrain show {run_id}' shows the result")
        return
    if run.result is None or run.status != outcome:
        return
    if run.error:
        note(f"there is a partial result; 'swissbrain show {run_id}' shows it")
        return
    typer.echo()
    show_table(Details(result_rows(run)))


def show_log(
    items: Iterable[Event | Gap],
    *,
    as_json: bool,
    timestamps: bool = False,
    reason: Reason | None = None,
    shown: Callable[[Event | Gap], None] = lambda _: None,
) -> Event | Gap | None:
    """Show events as they arrive; with a reason, also why none arrives. Return the last one, or None if none came.

    `shown` is called after each of them.
    """
    item = None
    screen = console(stderr=True)
    with EventLines(console(), timestamps=timestamps) as lines:
        if reason is not None and screen.is_terminal and not screen.is_dumb_terminal:
            items = with_reason(iter(items), reason, screen, lambda: not lines.is_line_open)
        for item in items:
            if as_json:
                print_json(item)
            else:
                lines.show(item)
            shown(item)
    return item


def show_table(table: RenderableType) -> None:
    """Print a table. An id or a path that is wider than the terminal is not cut: the terminal wraps it."""
    console().print(table, soft_wrap=True)


def pairs(texts: list[str], option: str) -> dict[str, str]:
    """Return KEY=VALUE options as a mapping. Raises BadParameter."""
    for text in texts:
        if "=" not in text:
            raise typer.BadParameter(f"'{text}' is not KEY=VALUE", param_hint=option)
    return dict(text.partition("=")[::2] for text in texts)


def print_json(*items: Any) -> None:
    """Print each value as one line of JSON that is safe on a terminal."""
    for item in items:
        typer.echo(json_line(item))


def json_line(item: Any) -> str:
    """Return a value as one line of JSON that is safe on a terminal."""
    return printable_json(msgspec.json.encode(item).decode())
