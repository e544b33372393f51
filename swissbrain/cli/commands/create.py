"""Commands that create a run: `run`, `fork`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swissbrain.cli.access import connect
from swissbrain.cli.agent_options import (
    ApprovalsFile,
    ContinueOf,
    Instructions,
    Model,
    SchemaFile,
    Stream,
    StrictPlan,
    Tools,
    agent_options,
)
from swissbrain.cli.inputs import input_files, send_files
from swissbrain.cli.limits import LimitOptions
from swissbrain.cli.options import (
    CodeSteps,
    Follow,
    InputFiles,
    Json,
    Network,
    NoInput,
    PlanFile,
    RunId,
    ShellSteps,
    TimeLimit,
    WebhookEvents,
    WebhookUrl,
)
from swissbrain.cli.output import follow_run, pairs, print_json
from swissbrain.cli.plan_file import read_plan
from swissbrain.cli.program_steps import program_steps
from swissbrain.cli.stop_signals import stop_signals
from swissbrain.cli.terminal import note, plain
from swissbrain.cli.times import future_ms, seconds
from swissbrain.models import Run

if TYPE_CHECKING:
    from swissbrain import Client

Delay = Annotated[
    float | None,
    typer.Option("--delay", parser=seconds, metavar="DURATION", help="Time until the run may start, such as 10m."),
]
StartAt = Annotated[
    int | None,
    typer.Option("--start-at", parser=future_ms, metavar="TIME", help="Earliest start, such as 2026-11-30T02:00."),
]
QueueTtl = Annotated[
    float | None,
    typer.Option(
        "--queue-ttl",
        parser=seconds,
        metavar="DURATION",
        help="Time until the run fails if no worker has started it, such as 1h.",
    ),
]


def run(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="Task of the agent.")] = None,
    model: Model = None,
    instructions: Instructions = None,
    tool: Tools = None,
    limit: LimitOptions = None,
    approvals: ApprovalsFile = None,
    output_schema: SchemaFile = None,
    strict_plan: StrictPlan = False,
    continue_of: ContinueOf = None,
    stream: Stream = True,
    plan: PlanFile = None,
    shell: ShellSteps = None,
    code: CodeSteps = None,
    network: Network = None,
    file: InputFiles = None,
    follow: Follow = False,
    no_input: NoInput = False,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Queue the run immediately.")] = True,
    priority: Annotated[int | None, typer.Option(help="0 (last) to 8 (first).")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="1 to 20.")] = None,
    timeout_s: TimeLimit = None,
    delay_s: Delay = None,
    start_at_ms: StartAt = None,
    queue_ttl_s: QueueTtl = None,
    webhook: WebhookUrl = None,
    webhook_event: WebhookEvents = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be given several times.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key returns the same run.")] = None,
    as_json: Json = False,
) -> None:
    """Create a run and queue it. Prints its id."""
    if delay_s is not None and start_at_ms is not None:
        raise typer.BadParameter("give --delay or --start-at, not both")
    steps = [*(read_plan(plan) if plan else ()), *program_steps(context, shell or [], code or [], network or [])]
    files = input_files(file or [])
    agent = agent_options(
        model, instructions, tool, limit, approvals, output_schema, continue_of, strict_plan=strict_plan, stream=stream
    )
    with connect(note) as client:
        created = client.create_run(
            steps if steps or plan else None,
            prompt=prompt,
            start=start and not files,
            priority=priority,
            max_attempts=max_attempts,
            timeout_s=timeout_s,
            metadata=pairs(metadata or [], "--metadata") or None,
            delay_s=delay_s,
            start_at_ms=start_at_ms,
            queue_ttl_s=queue_ttl_s,
            webhook_url=webhook,
            webhook_events=webhook_event,
            idempotency_key=key,
            **agent,
        )
        if files:
            _send_and_start(client, created, files, start=start)
        _show_created(client, created, follow=follow, no_input=no_input, as_json=as_json)


def fork(
    run_id: RunId,
    from_step: Annotated[int, typer.Option(help="First step to execute again, counted from 1.", min=1)],
    plan: PlanFile = None,
    prompt: Annotated[str | None, typer.Option(help="Another task for the agent.")] = None,
    follow: Follow = False,
    no_input: NoInput = False,
    as_json: Json = False,
) -> None:
    """Create a run that begins with the steps before one of RUN's, with their results and files."""
    steps = None if plan is None else read_plan(plan)
    with connect(note) as client:
        # People count steps from 1, the API counts them from 0.
        created = client.fork(run_id, from_step - 1, plan=steps, prompt=prompt)
        _show_created(client, created, follow=follow, no_input=no_input, as_json=as_json)


def _send_and_start(client: "Client", created: Run, files: Mapping[str, Path], *, start: bool) -> None:
    # With the idempotency key of an earlier call, the run may have been started already.
    if created.status == "created":
        with stop_signals():
            send_files(client, created, files)
        if start:
            client.start(created.run_id)


def _show_created(client: "Client", created: Run, *, follow: bool, no_input: bool, as_json: bool) -> None:
    if follow:
        note(f"run {created.run_id}")
        follow_run(client, created.run_id, as_json=as_json, no_input=no_input)
    elif as_json:
        print_json(client.get_run(created.run_id) if created.status == "created" else created)
    else:
        typer.echo(plain(created.run_id))
