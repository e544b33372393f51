"""What commands print, and the exit codes that tell how it went."""

from collections.abc import Iterable
from typing import Any

import msgspec
import typer

from swissbrain.client import Client
from swissbrain.event_lines import EventLines
from swissbrain.models import Event, Gap
from swissbrain.terminal import console, plain

FAILED, USAGE, CANCELLED = 1, 2, 3
EXIT_CODES = {"succeeded": 0, "failed": FAILED, "cancelled": CANCELLED}


def follow_run(client: Client, run_id: str, after: int, *, as_json: bool) -> None:
    """Show the log to its end and leave with the exit code of the outcome."""
    try:
        last = show_log(client.events(run_id, after=after), as_json=as_json)
    except KeyboardInterrupt:
        note(f"the run goes on; 'swissbrain logs -f {run_id}' shows it, 'swissbrain cancel {run_id}' stops it")
        raise
    # What the log said: by now the run may have been retried or deleted.
    said = last.data.get("status") if isinstance(last, Event) and last.type == "run.finished" else None
    raise typer.Exit(EXIT_CODES.get(str(said or client.get_run(run_id).status), 0))


def show_log(items: Iterable[Event | Gap], *, as_json: bool) -> Event | Gap | None:
    """Show events as they come; the last of them."""
    item = None
    with EventLines(console()) as lines:
        for item in items:
            if as_json:
                print_json(item)
            else:
                lines.show(item)
    return item


def print_json(*items: Any) -> None:
    """One value a line."""
    for item in items:
        typer.echo(msgspec.json.encode(item))


def note(line: str) -> None:
    """One line on stderr."""
    typer.echo(" ".join(f"swissbrain: {plain(line)}".split()), err=True)
