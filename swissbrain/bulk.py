"""Acting on many runs with one command."""

from collections.abc import Callable, Sequence
from http import HTTPStatus

import typer

from swissbrain.client import Client
from swissbrain.errors import ApiError
from swissbrain.output import USAGE, note


def named_runs(client: Client, run_ids: list[str] | None, error: str | None) -> list[str]:
    """The runs that were named, or those that failed with the code."""
    if bool(run_ids) == bool(error):
        raise typer.BadParameter("give the ids of runs, or --error")
    if run_ids:
        return run_ids
    found = [run.run_id for run in client.runs(status="failed", error=error)]
    if not found:
        note(f"no run has failed with '{error}'")
    return found


def each_run(run_ids: Sequence[str], act: Callable[[str], None]) -> None:
    """Act on all of them. Of many, one that is gone or in another state is told on stderr, and the others go on."""
    refused = False
    for run_id in run_ids:
        try:
            act(run_id)
        except ApiError as exc:
            if len(run_ids) == 1 or exc.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
                raise
            note(f"{run_id}: {exc}")
            refused = True
    if refused:
        raise typer.Exit(USAGE)
