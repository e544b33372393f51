"""Command `logs`."""

from typing import Annotated

import typer

from swissbrain.cli.access import connect
from swissbrain.cli.options import Follow, Json, RunId
from swissbrain.cli.output import follow_run, note, show_log


def logs(
    run_id: RunId,
    follow: Follow = False,
    after: Annotated[int, typer.Option(help="Begin after the event with this sequence number.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Show a run's log; with -f live, until it has ended."""
    with connect(note) as client:
        if follow:
            follow_run(client, run_id, after, as_json=as_json)
        else:
            show_log(client.logged(run_id, after=after), as_json=as_json)
