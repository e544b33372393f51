"""Commands that change the state of runs: `start`, `cancel`, `retry`, `delete`."""

import typer

from swissbrain.cli.access import connect
from swissbrain.cli.bulk import for_each_run, select_runs
from swissbrain.cli.options import FailedWith, Follow, Json, RunId, RunIds
from swissbrain.cli.output import follow_run, note, print_json
from swissbrain.cli.terminal import plain


def start(run_id: RunId, as_json: Json = False) -> None:
    """Queue a run that was created without being started."""
    with connect(note) as client:
        state = client.start(run_id)
    print_json(state) if as_json else typer.echo(plain(state.status))


def cancel(run_id: RunId, as_json: Json = False) -> None:
    """Cancel a run."""
    with connect(note) as client:
        state = client.cancel(run_id)
    pending = state.cancel_requested and state.status == "running"
    print_json(state) if as_json else typer.echo("cancel requested" if pending else plain(state.status))


def retry(
    run_ids: RunIds = None,
    error: FailedWith = None,
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Queue failed or cancelled runs again; completed steps are not repeated."""
    if follow and len(run_ids or ()) != 1:
        raise typer.BadParameter("--follow needs one run")
    with connect(note) as client:
        selected = select_runs(client, run_ids, error)
        # Read before the retry: the events of the new attempts come after this one.
        after = client.get_run(selected[0]).last_seq if follow else 0

        def retry_one(run_id: str) -> None:
            state = client.retry(run_id)
            if as_json:
                print_json(state)
            elif not follow:
                typer.echo(plain(f"{run_id} {state.status}"))

        for_each_run(selected, retry_one)
        if follow:
            follow_run(client, selected[0], after, as_json=as_json)


def delete(run_ids: RunIds = None, error: FailedWith = None) -> None:
    """Delete runs that have ended or were never started, with their logs and their files."""
    with connect(note) as client:

        def delete_one(run_id: str) -> None:
            client.delete(run_id)
            typer.echo(plain(f"{run_id} deleted"))

        for_each_run(select_runs(client, run_ids, error), delete_one)
