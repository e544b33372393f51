"""Command `logs`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from swissbrain.cli.access import connect
from swissbrain.cli.errors import CommandError
from swissbrain.cli.options import Follow, Json, NoInput, RunId
from swissbrain.cli.output import follow_run, show_log
from swissbrain.cli.terminal import note

if TYPE_CHECKING:
    from swissbrain import Client

MAX_LIVE_TAIL = 1000
STREAMS = ("stdout", "stderr")


def logs(
    run_id: RunId,
    follow: Follow = False,
    after: Annotated[int, typer.Option(help="Begin after the event with this sequence number.", min=0)] = 0,
    tail: Annotated[int | None, typer.Option("--tail", "-n", help="Only the last events.", min=1)] = None,
    step: Annotated[int | None, typer.Option(help="Only this step, counted from 1.", min=1)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only the step that failed.")] = False,
    stream: Annotated[str | None, typer.Option(help="Only the output on stdout, or that on stderr.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Show date and time zone too.")] = False,
    no_input: NoInput = False,
    as_json: Json = False,
) -> None:
    """Show a run's log; with -f live, until it has ended."""
    if stream not in {None, *STREAMS}:
        raise typer.BadParameter(
            f"'{stream}' is not a stream; streams are {' and '.join(STREAMS)}", param_hint="--stream"
        )
    if tail is not None and after:
        raise typer.BadParameter("give --tail or --after, not both")
    if failed and step is not None:
        raise typer.BadParameter("give --failed or --step, not both")
    if follow and tail is not None and tail > MAX_LIVE_TAIL:
        raise typer.BadParameter(f"with --follow at most {MAX_LIVE_TAIL}", param_hint="--tail")
    with connect(note) as client:
        # People count steps from 1, the API counts them from 0.
        index = _failed_step(client, run_id) if failed else None if step is None else step - 1
        filters: dict[str, Any] = {"step": index, "stream": stream}
        if follow:
            follow_run(
                client,
                run_id,
                after=after,
                tail=tail,
                as_json=as_json,
                no_input=no_input,
                timestamps=timestamps,
                **filters,
            )
        else:
            items = (
                client.logged(run_id, after=after, **filters)
                if tail is None
                else client.logs(run_id, tail=tail, **filters)
            )
            show_log(items, as_json=as_json, timestamps=timestamps)


def _failed_step(client: "Client", run_id: str) -> int:
    run = client.get_run(run_id)
    if run.error is None:
        raise CommandError(f"the run has not failed; it is {run.status}")
    if run.error.step is None:
        raise CommandError(f"the run failed outside of its steps: {run.error.message} ({run.error.code})")
    return run.error.step
