"""Commands that change the state of runs: `start`, `cancel`, `retry`, `delete`."""

from typing import TYPE_CHECKING

import typer

from swissbrain import Limits
from swissbrain.cli.access import connect
from swissbrain.cli.bulk import BulkOptions, for_each_run
from swissbrain.cli.limits import LimitOptions, limits_of
from swissbrain.cli.options import (
    CreatedAfter,
    CreatedBefore,
    DryRun,
    FailedWith,
    Follow,
    Json,
    Metadata,
    NoInput,
    RunId,
    RunIds,
    StatusFilter,
    Yes,
)
from swissbrain.cli.output import follow_run, json_line, pairs, print_json
from swissbrain.cli.selection import STDIN, RunFilters, select_runs
from swissbrain.cli.terminal import note, plain
from swissbrain.models import RunState

if TYPE_CHECKING:
    from swissbrain import Client


def start(run_id: RunId, as_json: Json = False) -> None:
    """Queue a run that was created without being started."""
    with connect(note) as client:
        state = client.start(run_id)
    print_json(state) if as_json else typer.echo(plain(state.status))


def cancel(
    run_ids: RunIds = None,
    status: StatusFilter = None,
    error: FailedWith = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    metadata: Metadata = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Cancel runs."""
    filters = RunFilters(status, error, created_after, created_before, pairs(metadata or [], "--metadata"))
    with connect(note) as client:

        def cancel_one(run_id: str) -> str:
            state = client.cancel(run_id)
            pending = state.cancel_requested and state.status == "running"
            return _line(run_id, state, as_json=as_json, shown="cancel requested" if pending else state.status)

        selected = select_runs(client, run_ids, filters, ("created", "queued", "running", "waiting"))
        for_each_run(selected, cancel_one, BulkOptions("cancel", bool(filters), yes, dry_run))


def retry(
    run_ids: RunIds = None,
    status: StatusFilter = None,
    error: FailedWith = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    metadata: Metadata = None,
    limit: LimitOptions = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    follow: Follow = False,
    no_input: NoInput = False,
    as_json: Json = False,
) -> None:
    """Queue failed or cancelled runs again; completed steps are not repeated."""
    if follow and (len(run_ids or ()) != 1 or run_ids == [STDIN]):
        raise typer.BadParameter("--follow needs one run")
    limits = limits_of(limit)
    filters = RunFilters(status, error, created_after, created_before, pairs(metadata or [], "--metadata"))
    with connect(note) as client:
        if follow and run_ids and not dry_run:
            _retry_and_follow(client, run_ids[0], limits, as_json=as_json, no_input=no_input)
            return

        def retry_one(run_id: str) -> str:
            state = client.retry(run_id, limits=limits)
            return _line(run_id, state, as_json=as_json, shown=state.status)

        selected = select_runs(client, run_ids, filters, ("failed", "cancelled"))
        for_each_run(selected, retry_one, BulkOptions("retry", bool(filters), yes, dry_run))


def delete(
    run_ids: RunIds = None,
    status: StatusFilter = None,
    error: FailedWith = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    metadata: Metadata = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete runs that have ended or were never started, with their logs and their files."""
    filters = RunFilters(status, error, created_after, created_before, pairs(metadata or [], "--metadata"))
    with connect(note) as client:

        def delete_one(run_id: str) -> str:
            client.delete(run_id)
            return f"{run_id} deleted"

        # Not those that were created alone: their files may be on the way.
        selected = select_runs(client, run_ids, filters, ("succeeded", "failed", "cancelled"))
        for_each_run(selected, delete_one, BulkOptions("delete", bool(filters), yes, dry_run))


def _retry_and_follow(client: "Client", run_id: str, limits: Limits | None, *, as_json: bool, no_input: bool) -> None:
    # Read before the retry: the events of the new attempts come after this one.
    after = client.get_run(run_id).last_seq
    state = client.retry(run_id, limits=limits)
    if as_json:
        print_json(state)
    follow_run(client, run_id, after=after, as_json=as_json, no_input=no_input)


def _line(run_id: str, state: RunState, *, as_json: bool, shown: str) -> str:
    return json_line(state) if as_json else f"{run_id} {shown}"
