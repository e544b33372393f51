"""Runs, files and the queue as tables for people."""

from collections.abc import Iterable

from rich.filesize import decimal
from rich.table import Table

from swissbrain.models import Attempt, File, QueueDepths, Run, RunSummary
from swissbrain.terminal import cell, cut, duration, moment, plain, status

SHOWN_PROMPT = 1000
"""A prompt is cut to so many characters."""


def runs_table(runs: Iterable[RunSummary]) -> Table:
    """A row for each run."""
    table = _table("run", "status", "created", "took", "title")
    for column in table.columns[:-1]:
        column.no_wrap = True
    for run in runs:
        took = "" if run.started_ms is None or run.finished_ms is None else duration(run.finished_ms - run.started_ms)
        why = f": {plain(run.error.code)}" if run.error else ""
        table.add_row(cell(run.run_id), status(run.status).append(why), moment(run.created_ms), took, cell(run.title))
    return table


def files_table(files: Iterable[File]) -> Table:
    """A row for each file."""
    table = _table("file", "size", "modified")
    table.columns[1].justify = "right"
    for file in files:
        table.add_row(cell(file.path), decimal(file.size_bytes), moment(file.modified_ms))
    return table


def attempts_table(attempts: Iterable[Attempt]) -> Table:
    """A row for each time a worker took the run."""
    table = _table("attempt", "worker", "began", "took", "ended")
    for each in attempts:
        took = "" if each.ended_ms is None else duration(each.ended_ms - each.started_ms)
        table.add_row(
            str(each.attempt), cell(each.worker), moment(each.started_ms), took, cell(each.outcome or "goes on")
        )
    return table


def queue_table(depths: QueueDepths) -> Table:
    """How many runs stand where."""
    table = _table("runs", "")
    table.columns[1].justify = "right"
    for name in ("ready", "delayed", "running", "dead", "pending"):
        table.add_row(name if name != "pending" else "wake tokens", str(getattr(depths, name)))
    return table


def run_table(run: Run) -> Table:
    """All that is worth knowing of a run."""
    table = _table("run", run.run_id)
    times = {
        "created": run.created_ms,
        "queued": run.queued_ms,
        "to start": run.start_at_ms,
        "started": run.started_ms,
        "ended": run.finished_ms,
    }
    note = ", cancel requested" if run.cancel_requested and not run.ended else ""
    table.add_row("status", status(run.status).append(note))
    if run.error:
        at = "" if run.error.step is None else f" (step {run.error.step + 1})"
        table.add_row("error", cell(f"{run.error.code}: {run.error.message}{at}"))
    if run.prompt is not None:
        table.add_row("prompt", cell(cut(run.prompt, SHOWN_PROMPT)))
    for number, step in enumerate(run.plan or (), 1):
        table.add_row(f"step {number}", cell(f"{step.name or step.tool}  [{step.tool}]"))
    for name, at_ms in times.items():
        if at_ms is not None:
            table.add_row(name, moment(at_ms))
    table.add_row("attempt", f"{run.attempt} of {run.max_attempts}")
    table.add_row("priority", str(run.priority))
    table.add_row("events", str(run.last_seq))
    for key, value in run.metadata.items():
        table.add_row(cell(key), cell(value))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for name in columns:
        table.add_column(cell(name), overflow="fold")
    return table
