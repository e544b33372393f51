"""Tables of runs, files, attempts, steps, usage and the queue, for people."""

import time
from collections.abc import Iterable, Iterator

import msgspec
from rich.filesize import decimal
from rich.text import Text

from swissbrain.agent import ModelUsage, UsageReport
from swissbrain.cli.layout import Column, Details, Rows
from swissbrain.cli.queue_place import why_queued
from swissbrain.cli.results import MAX_RESULT_CHARS, result_rows
from swissbrain.cli.screen import cell, line, status
from swissbrain.cli.terminal import date_time, duration, plain, truncate
from swissbrain.models import Attempt, File, QueueDepths, Run, RunSummary, Step

MAX_PROMPT_CHARS = 1000


def runs_table(runs: Iterable[RunSummary]) -> Rows:
    """Return a table with a row for each run."""
    columns = [Column("run"), Column("status"), Column("created"), Column("took"), Column("title", flexible=True)]
    return Rows(columns, map(_run_row, runs))


def _run_row(run: RunSummary) -> list[Text]:
    took = "" if run.worked_ms is None or run.finished_ms is None else duration(run.worked_ms)
    reason = f": {plain(run.error.code)}" if run.error else ""
    state = line(status(run.status).append(reason))
    return [line(run.run_id), state, Text(date_time(run.created_ms)), Text(took), line(run.title)]


def files_table(files: Iterable[File]) -> Rows:
    """Return a table with a row for each file."""
    columns = [Column("file"), Column("size", right=True), Column("modified")]
    rows = ([line(file.path), Text(decimal(file.size_bytes)), Text(date_time(file.modified_ms))] for file in files)
    return Rows(columns, rows)


def attempts_table(attempts: Iterable[Attempt]) -> Rows:
    """Return a table with a row for each claim by a worker."""
    columns = [Column(name) for name in ("attempt", "worker", "began", "took", "ended")]
    return Rows(columns, map(_attempt_row, attempts))


def _attempt_row(attempt: Attempt) -> list[Text]:
    took = "" if attempt.ended_ms is None else duration(attempt.ended_ms - attempt.started_ms)
    ended = line(attempt.outcome or "running")
    return [Text(str(attempt.attempt)), line(attempt.worker), Text(date_time(attempt.started_ms)), Text(took), ended]


def steps_table(steps: Iterable[Step]) -> Rows:
    """Return a table with a row for each step, counted from 1; calls of an agent follow the number of its step."""
    flexible = {"name", "result"}
    columns = [Column(name, flexible=name in flexible) for name in ("step", "name", "status", "took", "result")]
    return Rows(columns, map(_step_row, steps))


def _step_row(step: Step) -> list[Text]:
    took = "" if step.duration_ms is None else duration(step.duration_ms)
    name = step.tool if step.name == step.tool else f"{step.name} [{step.tool}]"
    if step.plan_step is not None:
        name = f"{step.plan_step + 1}: {name}"
    return [Text(str(step.index + 1)), line(name), status(step.status), Text(took), _result(step)]


def _result(step: Step) -> Text:
    if step.error is not None:
        return line(f"{step.error.code}: {step.error.message}")
    if step.kept is not None:
        return line(f"too large for the list: {step.kept}")
    return line("" if step.result is None else truncate(msgspec.json.encode(step.result).decode(), MAX_RESULT_CHARS))


def queue_table(depths: QueueDepths) -> Rows:
    """Return a table with the number of runs in each part of the queue."""
    names = {
        "ready": "ready",
        "delayed": "delayed",
        "running": "running",
        "waiting": "waiting",
        "dead": "dead",
        "pending": "wake tokens",
        "workers": "workers alive",
    }
    rows = ([Text(shown), Text(str(getattr(depths, name)))] for name, shown in names.items())
    return Rows([Column("runs"), Column("", right=True)], rows)


def usage_table(report: UsageReport) -> Rows:
    """Return a table with the usage of each day, and in total."""
    columns = [
        Column("day"),
        *(Column(name, right=True) for name in ("exchanges", "tokens in", "tokens out")),
        Column("cost"),
    ]
    rows = [*((day.day, day) for day in report.days), ("total", report.total)]
    return Rows(columns, (_usage_row(name, usage) for name, usage in rows))


def _usage_row(name: str, usage: ModelUsage) -> list[Text]:
    numbers = (usage.exchanges, usage.input_tokens, usage.output_tokens)
    return [line(name), *(Text(f"{number:,}") for number in numbers), line(_cost(usage))]


def _cost(usage: ModelUsage) -> str:
    """Return the cost as text, with the number of exchanges whose cost is unknown."""
    unknown = [f"unknown for {usage.unpriced}"] if usage.unpriced else []
    return ", ".join([*(f"{currency} {amount}" for currency, amount in usage.cost.items()), *unknown])


def run_table(run: Run) -> Details:
    """Return a table with the details of a run."""
    return Details(_run_details(run))


def _agent_options(run: Run) -> Iterator[tuple[Text, Text]]:
    rules = (f"{rule.policy} {rule.tool}" for rule in run.approvals)
    options = {
        "model": run.model or "",
        "instructions": truncate(run.instructions or "", MAX_PROMPT_CHARS),
        "tools": ", ".join(run.tools or ()),
        "rules": ", ".join(rules),
    }
    yield from ((Text(name), cell(value)) for name, value in options.items() if value)


def _run_details(run: Run) -> Iterator[tuple[Text, Text]]:
    yield Text("run"), cell(run.run_id)
    note = ", cancel requested" if run.cancel_requested and not run.ended else ""
    yield Text("status"), status(run.status).append(f"{note}{why_queued(run, time.time() * 1000)}")
    if run.error:
        of = f" of {len(run.plan)}" if run.plan else ""
        step_note = "" if run.error.step is None else f" (step {run.error.step + 1}{of})"
        yield Text("error"), cell(f"{run.error.code}: {run.error.message}{step_note}")
    yield from _agent_details(run)
    if run.prompt is not None:
        yield Text("prompt"), cell(truncate(run.prompt, MAX_PROMPT_CHARS))
    yield from _agent_options(run)
    for number, step in enumerate(run.plan or (), 1):
        yield Text(f"step {number}"), cell(f"{step.name or step.tool}  [{step.tool}]")
    times = {
        "created": run.created_ms,
        "queued": run.queued_ms,
        "to start": run.start_at_ms,
        "started": run.started_ms,
        "ended": run.finished_ms,
    }
    for name, at_ms in times.items():
        if at_ms is not None:
            yield Text(name), Text(date_time(at_ms))
    if run.worked_ms is not None:
        yield Text("took"), Text(duration(run.worked_ms))
    yield Text("attempt"), Text(f"{run.attempt} of {run.max_attempts}")
    yield Text("priority"), Text(str(run.priority))
    yield Text("events"), Text(str(run.last_seq))
    for key, value in run.metadata.items():
        yield line(key), cell(value)


def _agent_details(run: Run) -> Iterator[tuple[Text, Text]]:
    """Yield the details of a run that a model plans."""
    yield from result_rows(run)
    if limits := msgspec.to_builtins(run.limits):
        yield Text("limits"), cell(", ".join(f"{name} {number:,}" for name, number in limits.items()))
    if used := run.usage:
        tokens = f"{used.input_tokens:,} tokens in, {used.output_tokens:,} out"
        cost = _cost(used)
        parts = [f"{used.exchanges:,} exchanges", tokens, *([f"cost: {cost}"] if cost else [])]
        yield Text("usage"), cell(", ".join(parts))
