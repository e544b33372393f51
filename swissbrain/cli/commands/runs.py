"""Commands that show runs: `runs`, `show`."""

from typing import Annotated

import typer

from swissbrain.cli import tables
from swissbrain.cli.access import connect
from swissbrain.cli.options import Json, RunId
from swissbrain.cli.output import note, print_json
from swissbrain.cli.terminal import console


def runs(
    status: Annotated[str | None, typer.Option(help="Only runs with this status.")] = None,
    error: Annotated[str | None, typer.Option(help="Only runs that failed with this code.")] = None,
    limit: Annotated[int, typer.Option(help="Largest number of runs, newest first.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """List your runs, newest first."""
    with connect(note) as client:
        listed = client.runs(status=status, error=error, on_unreadable=_warn_of_unreadable)
        found = [item for item, _ in zip(listed, range(limit), strict=False)]
    if as_json:
        print_json(*found)
    else:
        console().print(tables.runs_table(found))


def _warn_of_unreadable(run_id: str) -> None:
    note(f"the record of run {run_id} cannot be read: it is damaged, or a newer release has written it")


def show(
    run_id: RunId,
    attempts: Annotated[bool, typer.Option("--attempts", help="Show the attempts of the run instead.")] = False,
    as_json: Json = False,
) -> None:
    """Show a run."""
    with connect(note) as client:
        if attempts:
            found = client.attempts(run_id)
            print_json(*found) if as_json else console().print(tables.attempts_table(found))
        else:
            run = client.get_run(run_id)
            print_json(run) if as_json else console().print(tables.run_table(run))
