"""Commands that show runs: `runs`, `show`."""

from itertools import islice
from typing import Annotated

import typer

from swissbrain.agent import Waiting
from swissbrain.cli import tables
from swissbrain.cli.access import connect
from swissbrain.cli.open_requests import request_text
from swissbrain.cli.options import CreatedAfter, CreatedBefore, FailedWith, Json, Metadata, RunId, StatusFilter
from swissbrain.cli.output import pairs, print_json, show_table
from swissbrain.cli.screen import console
from swissbrain.cli.selection import RunFilters, warn_of_unreadable
from swissbrain.cli.terminal import note, plain, truncate

MAX_TITLE_CHARS = 40


def runs(
    status: StatusFilter = None,
    error: FailedWith = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option(help="Largest number of runs, newest first.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """List your runs, newest first."""
    filters = RunFilters(status, error, created_after, created_before, pairs(metadata or [], "--metadata"))
    arguments = filters.arguments() | ({} if status is not None else {"status": None})
    with connect(note) as client:
        found = list(islice(client.runs(**arguments, on_unreadable=warn_of_unreadable), limit))
    if as_json:
        print_json(*found)
    else:
        show_table(tables.runs_table(found))
        if "waiting" in (status or "").split(","):
            for each in found:
                _show_requests(each.waiting, f"\n{plain(each.run_id)}  {truncate(plain(each.title), MAX_TITLE_CHARS)}")


def show(
    run_id: RunId,
    attempts: Annotated[bool, typer.Option("--attempts", help="Show the attempts of the run instead.")] = False,
    as_json: Json = False,
) -> None:
    """Show a run."""
    with connect(note) as client:
        if attempts:
            found = client.attempts(run_id)
            print_json(*found) if as_json else show_table(tables.attempts_table(found))
        else:
            run = client.get_run(run_id)
            if as_json:
                print_json(run)
            else:
                show_table(tables.run_table(run))
                _show_requests(run.waiting)


def _show_requests(waiting: Waiting | None, title: str = "") -> None:
    for index, request in enumerate(waiting.requests if waiting else ()):
        if index == 0:
            typer.echo(title)
        console().print(request_text(request, console()), soft_wrap=True)
