"""Commands `webhook secret`, `list`, `resend`."""

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.text import Text

from swissbrain.cli.access import connect
from swissbrain.cli.layout import Column, Rows
from swissbrain.cli.options import Json, RunId
from swissbrain.cli.output import print_json, show_table
from swissbrain.cli.screen import line
from swissbrain.cli.terminal import date_time, note, plain
from swissbrain.webhooks import WebhookDelivery

EventId = Annotated[str | None, typer.Argument(metavar="[EVENT]", help="Id of the event; default: the last one.")]

webhook = typer.Typer(help="Calls to your URL when runs end or wait.", no_args_is_help=True)


@webhook.command()
def secret() -> None:
    """Print the secret with which events are signed."""
    with connect(note) as client:
        typer.echo(plain(client.webhook_secret()))


@webhook.command("list")
def list_deliveries(run_id: RunId, as_json: Json = False) -> None:
    """List the events of a run, and whether they were delivered."""
    with connect(note) as client:
        found = client.webhook_deliveries(run_id)
    print_json(*found) if as_json else show_table(_table(found))


@webhook.command()
def resend(run_id: RunId, event_id: EventId = None) -> None:
    """Send an event of a run again. Prints its id."""
    with connect(note) as client:
        if event_id is None:
            events = client.webhook_deliveries(run_id)
            if not events:
                raise typer.BadParameter("the run has no events for a webhook", param_hint="'RUN'")
            event_id = events[-1].event_id
        client.resend_webhook(run_id, event_id)
    typer.echo(plain(event_id))


def _table(events: Iterable[WebhookDelivery]) -> Rows:
    columns = [Column(name) for name in ("time", "event", "state", "attempts")] + [Column("last answer", flexible=True)]
    return Rows(columns, map(_row, events))


def _row(event: WebhookDelivery) -> list[Text]:
    last = event.last_attempts[-1] if event.last_attempts else None
    answer = "" if last is None else last.error or f"status {last.status}"
    return [
        Text(date_time(event.at_ms)),
        line(event.event),
        line(event.state),
        Text(str(event.attempts)),
        line(answer),
    ]
