"""Tables of runs, files, attempts and the queue, for people."""

from collections.abc import Iterable

from rich.filesize import decimal
from rich.table import Table

from swissbrain.cli.terminal import cell, date_time, duration, plain, status, truncate
from swissbrain.models import Attempt, File, QueueDepths, Run, RunSummary

MAX_PROMPT_CHARS = 1000


def runs_table(runs: Iterable[RunSummary]) -> Table:
    """Return a table with a row for each run."""
    table = _table("run", "status", "created", "took", "title")
    for column in table.columns[:-1]:
        column.no_wrap = True
    for run in runs:
        took = "" if run.started_ms is None or run.finished_ms is None else duration(run.finished_ms - run.started_ms)
        reason = f": {plain(run.error.code)}" if run.error else ""
        table.add_row(
            cell(run.run_id), status(run.status).append(reason), date_time(run.created_ms), took, cell(run.title)
        )
    return table


def files_table(files: Iterable[File]) -> Table:
    """Return a table with a row for each file."""
    table = _table("file", "size", "modified")
    table.columns[1].justify = "right"
    for file in files:
        table.add_row(cell(file.path), decimal(file.size_bytes), date_time(file.modified_ms))
    return table


def attempts_table(attempts: Iterable[Attempt]) -> Table:
    """Return a table with a row for each claim by a worker."""
    table = _table("attempt", "worker", "began", "took", "ended")
    for attempt in attempts:
        took = "" if attempt.ended_ms is None else duration(attempt.ended_ms - attempt.started_ms)
        table.add_row(
            str(attempt.attempt),
            cell(attempt.worker),
            date_time(attempt.started_ms),
            took,
            cell(attempt.outcome or "goes on"),
        )
    return table


def queue_table(depths: QueueDepths) -> Table:
    """Return a table with the number of runs in each part of the queue."""
    table = _table("runs", "")
    table.columns[1].justify = "right"
    for name in ("ready", "delayed", "running", "dead", "pending"):
        table.add_row(name if name != "pending" else "wake tokens", str(getattr(depths, name)))
    return table


def run_table(run: Run) -> Table:
    """Return a table with the details of a run."""
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
        step_note = "" if run.error.step is None else f" (step {run.error.step + 1})"
        table.add_row("error", cell(f"{run.error.code}: {run.error.message}{step_note}"))
    if run.prompt is not None:
        table.add_row("prompt", cell(truncate(run.prompt, MAX_PROMPT_CHARS)))
    for number, step in enumerate(run.plan or (), 1):
        table.add_row(f"step {number}", cell(f"{step.name or step.tool}  [{step.tool}]"))
    for name, at_ms in times.items():
        if at_ms is not None:
            table.add_row(name, date_time(at_ms))
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
