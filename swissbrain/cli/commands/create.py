"""Commands that create a run: `run`, `fork`."""

from pathlib import Path
from typing import Annotated

import typer

from swissbrain import Client
from swissbrain.cli.access import connect
from swissbrain.cli.options import Follow, Json, RunId
from swissbrain.cli.output import follow_run, note, print_json
from swissbrain.cli.plan_file import read_plan
from swissbrain.cli.terminal import plain
from swissbrain.cli.times import future_ms
from swissbrain.models import Run


def run(
    prompt: Annotated[str | None, typer.Argument(help="Task of the agent.")] = None,
    plan: Annotated[Path | None, typer.Option(help="JSON file with the steps to execute.")] = None,
    follow: Follow = False,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Queue the run immediately.")] = True,
    priority: Annotated[int | None, typer.Option(help="0 (last) to 8 (first).")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="1 to 20.")] = None,
    timeout_s: Annotated[float | None, typer.Option("--timeout", help="Seconds until the run is stopped.")] = None,
    delay_s: Annotated[float | None, typer.Option("--delay", help="Seconds until the run may start.")] = None,
    start_at_ms: Annotated[
        int | None,
        typer.Option("--start-at", parser=future_ms, metavar="TIME", help="Earliest start, such as 2026-11-30T02:00."),
    ] = None,
    queue_ttl_s: Annotated[
        float | None, typer.Option("--queue-ttl", help="Seconds until the run fails if no worker has started it.")
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be given several times.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key returns the same run.")] = None,
    as_json: Json = False,
) -> None:
    """Create a run and queue it. Prints its id."""
    if delay_s is not None and start_at_ms is not None:
        raise typer.BadParameter("give --delay or --start-at, not both")
    steps = None if plan is None else read_plan(plan)
    with connect(note) as client:
        created = client.create_run(
            prompt=prompt,
            plan=steps,
            start=start,
            priority=priority,
            max_attempts=max_attempts,
            timeout_s=timeout_s,
            metadata=_pairs(metadata or []) or None,
            delay_s=delay_s,
            start_at_ms=start_at_ms,
            queue_ttl_s=queue_ttl_s,
            idempotency_key=key,
        )
        _show_created(client, created, follow=follow, as_json=as_json)


def fork(
    run_id: RunId,
    from_step: Annotated[int, typer.Option(help="First step to execute again, counted from 1.", min=1)],
    plan: Annotated[Path | None, typer.Option(help="JSON file with other steps from there on.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Another task for the agent.")] = None,
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Create a run that begins with the steps before one of RUN's, with their results and files."""
    steps = None if plan is None else read_plan(plan)
    with connect(note) as client:
        # People count steps from 1, the API counts them from 0.
        created = client.fork(run_id, from_step - 1, plan=steps, prompt=prompt)
        _show_created(client, created, follow=follow, as_json=as_json)


def _show_created(client: Client, created: Run, *, follow: bool, as_json: bool) -> None:
    if follow:
        note(f"run {created.run_id}")
        follow_run(client, created.run_id, 0, as_json=as_json)
    elif as_json:
        print_json(created)
    else:
        typer.echo(plain(created.run_id))


def _pairs(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise typer.BadParameter(f"'{text}' is not KEY=VALUE", param_hint="--metadata")
    return dict(text.partition("=")[::2] for text in texts)
