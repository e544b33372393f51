"""Output of commands, and the exit codes for the outcome of a run."""

from collections.abc import Iterable
from typing import Any

import msgspec
import typer

from swissbrain import Client
from swissbrain.cli.event_lines import EventLines
from swissbrain.cli.silence import Reason, with_reason
from swissbrain.cli.terminal import console, plain, printable_json
from swissbrain.models import Event, Gap

FAILED, USAGE, CANCELLED = 1, 2, 3
EXIT_CODES = {"succeeded": 0, "failed": FAILED, "cancelled": CANCELLED}


def follow_run(client: Client, run_id: str, after: int, *, as_json: bool) -> None:
    """Show the log until the run has ended, then exit with the code of its outcome."""
    try:
        last = show_log(client.events(run_id, after=after), as_json=as_json, reason=Reason(client, run_id))
    except KeyboardInterrupt:
        note(f"the run goes on; 'swissbrain logs -f {run_id}' shows it, 'swissbrain cancel {run_id}' stops it")
        raise
    # The outcome comes from the log where possible: the run may have been retried or deleted since.
    outcome = last.data.get("status") if isinstance(last, Event) and last.type == "run.finished" else None
    raise typer.Exit(EXIT_CODES.get(str(outcome or client.get_run(run_id).status), 0))


def show_log(items: Iterable[Event | Gap], *, as_json: bool, reason: Reason | None = None) -> Event | Gap | None:
    """Show events as they arrive; with a reason, also why none arrives. Return the last one, or None if none came."""
    item = None
    screen = console(stderr=True)
    with EventLines(console()) as lines:
        if reason is not None and screen.is_terminal and not screen.is_dumb_terminal:
            items = with_reason(iter(items), reason, screen, lambda: not lines.is_line_open)
        for item in items:
            if as_json:
                print_json(item)
            else:
                lines.show(item)
    return item


def print_json(*items: Any) -> None:
    """Print each value as one line of JSON that is safe on a terminal."""
    for item in items:
        typer.echo(printable_json(msgspec.json.encode(item).decode()))


def note(line: str) -> None:
    """Print one line on stderr."""
    typer.echo(" ".join(f"swissbrain: {plain(line)}".split()), err=True)
