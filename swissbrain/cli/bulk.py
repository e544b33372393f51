"""Selection of several runs, and one action on each of them."""

from collections.abc import Callable, Sequence
from http import HTTPStatus

import typer

from swissbrain import Client
from swissbrain.cli.output import USAGE, note
from swissbrain.errors import ApiError


def select_runs(client: Client, run_ids: list[str] | None, error: str | None) -> list[str]:
    """Return the given ids, or the ids of the runs that failed with the code `error`. Raises BadParameter."""
    if bool(run_ids) == bool(error):
        raise typer.BadParameter("give the ids of runs, or --error")
    if run_ids:
        return run_ids
    found = [run.run_id for run in client.runs(status="failed", error=error)]
    if not found:
        note(f"no run has failed with '{error}'")
    return found


def for_each_run(run_ids: Sequence[str], act: Callable[[str], None]) -> None:
    """Act on each run.

    With several runs, a run that is missing or in the wrong state is reported on stderr and skipped; the exit code is
    2 in the end.
    """
    skipped = False
    for run_id in run_ids:
        try:
            act(run_id)
        except ApiError as exc:
            # Other refusals, such as 403, would be the same for every run.
            if len(run_ids) == 1 or exc.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
                raise
            note(f"{run_id}: {exc}")
            skipped = True
    if skipped:
        raise typer.Exit(USAGE)
