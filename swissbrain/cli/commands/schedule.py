"""Commands `schedule create`, `list`, `next`, `pause`, `resume`, `run-now`, `rm`."""

from typing import Annotated, Any

import typer

from swissbrain.cli.access import connect
from swissbrain.cli.agent_options import (
    ApprovalsFile,
    Instructions,
    Model,
    SchemaFile,
    StrictPlan,
    Tools,
    agent_options,
)
from swissbrain.cli.exit_codes import FAILED
from swissbrain.cli.limits import LimitOptions
from swissbrain.cli.options import (
    CodeSteps,
    Json,
    Network,
    PlanFile,
    ShellSteps,
    TimeLimit,
    WebhookEvents,
    WebhookUrl,
)
from swissbrain.cli.output import pairs, print_json, show_table
from swissbrain.cli.plan_file import read_plan
from swissbrain.cli.program_steps import OrderedCommand, program_steps
from swissbrain.cli.schedule_tables import schedule_table, schedules_table
from swissbrain.cli.terminal import note, plain
from swissbrain.schedules import Schedule

ScheduleId = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Id of the schedule.")]

schedule = typer.Typer(help="Start runs at the times of a cron expression.", no_args_is_help=True)


@schedule.command(cls=OrderedCommand)
def create(
    context: typer.Context,
    cron: Annotated[str, typer.Argument(help="Minute, hour, day, month, weekday: '0 8 * * MON-FRI'.")],
    prompt: Annotated[str | None, typer.Argument(help="Task of the agent.")] = None,
    timezone: Annotated[str | None, typer.Option(metavar="NAME", help="Such as Europe/Zurich; default: UTC.")] = None,
    overlap: Annotated[
        str | None, typer.Option(metavar="POLICY", help="While the last run has not ended: skip, queue or cancel.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Create it paused.")] = False,
    model: Model = None,
    instructions: Instructions = None,
    tool: Tools = None,
    limit: LimitOptions = None,
    approvals: ApprovalsFile = None,
    output_schema: SchemaFile = None,
    strict_plan: StrictPlan = False,
    plan: PlanFile = None,
    shell: ShellSteps = None,
    code: CodeSteps = None,
    network: Network = None,
    timeout_s: TimeLimit = None,
    webhook: WebhookUrl = None,
    webhook_event: WebhookEvents = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be given several times.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key returns the same schedule.")] = None,
    as_json: Json = False,
) -> None:
    """Create a schedule, whose runs have the prompt or the plan. Prints its id."""
    steps = [*(read_plan(plan) if plan else ()), *program_steps(context, shell or [], code or [], network or [])]
    agent = agent_options(
        model, instructions, tool, limit, approvals, output_schema, None, strict_plan=strict_plan, stream=True
    )
    run: dict[str, Any] = {
        "plan": steps if steps or plan else None,
        "prompt": prompt,
        "timeout_s": timeout_s,
        "webhook_url": webhook,
        "webhook_events": webhook_event or None,
        "metadata": pairs(metadata or [], "--metadata") or None,
        **agent,
    }
    with connect(note) as client:
        made = client.create_schedule(
            cron, run, timezone=timezone, overlap=overlap, paused=paused or None, idempotency_key=key
        )
    print_json(made) if as_json else typer.echo(plain(made.schedule_id))


@schedule.command("list")
def list_schedules(as_json: Json = False) -> None:
    """List your schedules."""
    with connect(note) as client:
        found = client.schedules()
    print_json(*found) if as_json else show_table(schedules_table(found))


@schedule.command("next")
def next_times(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Show when a schedule is due next, and what its last tick did."""
    with connect(note) as client:
        _show(client.get_schedule(schedule_id), as_json=as_json)


@schedule.command()
def pause(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Pause a schedule: it starts no runs until it is resumed."""
    with connect(note) as client:
        _show(client.change_schedule(schedule_id, paused=True), as_json=as_json)


@schedule.command()
def resume(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Resume a paused schedule."""
    with connect(note) as client:
        _show(client.change_schedule(schedule_id, paused=False), as_json=as_json)


@schedule.command("run-now")
def run_now(schedule_id: ScheduleId, as_json: Json = False) -> None:
    """Start a run of a schedule at once. Prints its id; exit code 1 if the overlap policy skips it."""
    with connect(note) as client:
        result = client.run_schedule_now(schedule_id)
    if as_json:
        print_json(result)
    elif result.outcome == "started":
        typer.echo(plain(str(result.run_id)))
    else:
        note(f"skipped: the run {result.run_id} has not ended")
    if result.outcome != "started":
        raise typer.Exit(FAILED)


@schedule.command()
def rm(schedule_id: ScheduleId) -> None:
    """Delete a schedule. Its runs stay."""
    with connect(note) as client:
        client.delete_schedule(schedule_id)
    typer.echo(f"{plain(schedule_id)} deleted")


def _show(found: Schedule, *, as_json: bool) -> None:
    print_json(found) if as_json else show_table(schedule_table(found))
