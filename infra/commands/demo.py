"""Command `swissbrain demo`: one real run through the whole product, followed live, and a check of its results."""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from infra.commands import demo_tasks
from infra.commands.demo_tasks import Task, WrongResult
from infra.commands.running import Interrupted, Unsafe, running
from infra.settings import Env
from swissbrain import Client
from swissbrain.cli.answers import Answers, can_ask
from swissbrain.cli.event_lines import EventLines
from swissbrain.cli.screen import cell, console, status
from swissbrain.cli.terminal import duration, note, plain
from swissbrain.models import Event, Run

RESULTS = Path(".swissbrain") / "demo"
"""Folder that receives the files of the run, for users to look at."""


@dataclass(frozen=True)
class StepTime:
    """Outcome of a step of the plan; `duration_ms` is None if the step did not end."""

    name: str
    status: str
    duration_ms: int | None


def demo(unsafe_no_sandbox: Unsafe = False) -> None:
    """Start everything, watch one real run, check its results, stop everything."""
    try:
        succeeded = _show_on_stack(demo_tasks.choose(Env(os.environ)), unsafe_no_sandbox=unsafe_no_sandbox)
    except Interrupted as exc:
        raise typer.Exit(128 + exc.number) from None
    if not succeeded:
        raise typer.Exit(1)


def _show_on_stack(task: Task, *, unsafe_no_sandbox: bool) -> bool:
    """Run the task on a temporary stack. Return True if the results are right."""
    out = console()
    RESULTS.mkdir(parents=True, exist_ok=True)  # first, because it may fail
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="swissbrain-demo-") as folder,
        running(Path(folder), workers=1, port=0, unsafe_no_sandbox=unsafe_no_sandbox) as stack,
    ):
        url = stack.env["SWISSBRAIN_API_URL"]
        out.print(
            f"Redis, S3, gateway, API and worker are up after {duration(1000 * (time.monotonic() - started))}: {url}"
        )
        with Client(url, stack.env["SWISSBRAIN_TOKEN"]) as client:
            if not show(task, client, out):
                return False
    out.print(
        f"\nThe API was at {url}, and has stopped. 'make dev' starts it to stay; '{task.again}' runs this again.",
        soft_wrap=True,
        markup=False,
    )
    return True


def show(task: Task, client: Client, out: Console) -> bool:
    """Run the task, and show its log and its outcome. Return True if the results are right."""
    out.print(plain(task.says), markup=False, soft_wrap=True)
    run = task.send(client)
    out.print(f"run {run.run_id}\n")
    events = [event for event in _follow(client, run.run_id, out) if isinstance(event, Event)]
    return _report(client, task, client.get_run(run.run_id), events, out)


def _follow(client: Client, run_id: str, out: Console) -> list[object]:
    """Show the log until the run has ended, or waits without an answer."""
    seen: list[object] = []
    answers = Answers(client, run_id, note, asks=True)
    with EventLines(out) as lines:
        for item in client.events(run_id):
            lines.show(item)
            seen.append(item)
            if isinstance(item, Event) and item.type == "run.waiting":
                if can_ask():
                    answers.note(item)
                if client.get_run(run_id).status == "waiting":
                    break
    return seen


def _report(client: Client, task: Task, run: Run, events: Sequence[Event], out: Console) -> bool:
    """Print the summary. Return True if the run succeeded and its log and files are right."""
    out.print()
    if times := _step_times(run, events):
        out.print(_steps_table(times))
        out.print()
    try:
        _check_status(run)
        demo_tasks.check_log(run, events)
        sizes = demo_tasks.fetch(client, run.run_id, RESULTS, others_allowed=task.others_allowed)
        task.check(RESULTS, run)
    except WrongResult as exc:
        out.print(f"Not as it should be: {plain(exc)}", style="red", markup=False, soft_wrap=True)
        return False
    _print_model(run, out)
    took = duration((run.finished_ms or 0) - run.created_ms)
    out.print(f"The run [green]succeeded[/] in {took}; {len(events)} events; its files in S3 are right:")
    for path, size in sizes.items():
        out.print(f"  {decimal(size):>12}  {RESULTS / path}", markup=False, soft_wrap=True)
    return True


def _check_status(run: Run) -> None:
    """Raise WrongResult, with the reason, unless the run succeeded."""
    if run.status == "waiting":
        asked = run.waiting.requests[0].question if run.waiting and run.waiting.requests else "a person"
        raise WrongResult(f"the run waits for an answer, and nobody gives one: {asked}")
    if run.status != "succeeded":
        reason = f": {run.error.message} ({run.error.code})" if run.error else ""
        raise WrongResult(f"the run {run.status}{reason}")


def _print_model(run: Run, out: Console) -> None:
    """Print what the model says, and what it took; nothing for an explicit plan."""
    if run.usage is None or run.result is None:
        return
    out.print(f"The model says: {plain(run.result.get('summary', ''))}", markup=False, soft_wrap=True)
    used = run.usage
    estimated = ", in part estimated" if used.estimated else ""
    out.print(
        f"{used.exchanges} exchanges with the model; {used.input_tokens:,} tokens read, {used.output_tokens:,} written"
        f"{estimated}.",
        soft_wrap=True,
    )


def _steps_table(times: Sequence[StepTime]) -> Table:
    table = Table("step", "status", "took", box=None, pad_edge=False, header_style="bold")
    for step in times:
        took = "" if step.duration_ms is None else duration(step.duration_ms)
        table.add_row(cell(step.name), status(step.status), took)
    return table


def _step_times(run: Run, events: Sequence[Event]) -> list[StepTime]:
    ended = {event.step: event.data for event in events if event.type == "step.finished"}
    times = []
    for index, name in enumerate(_step_names(run, events)):
        data = ended.get(index, {})
        times.append(StepTime(name, data.get("status", "not done"), data.get("duration_ms")))
    return times


def _step_names(run: Run, events: Sequence[Event]) -> list[str]:
    """Return the names of the steps of the explicit plan, or of the model's plans as they have replaced each other."""
    names = [step.name or step.tool for step in run.plan or ()]
    for event in events:
        if event.type == "plan.created":
            names[int(event.data.get("first", 0)) :] = [str(step["name"]) for step in event.data["steps"]]
    return names
