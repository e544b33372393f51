"""One action on each of several runs: asked about, shown, and reported for every single run."""

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import FrameType
from typing import TypeAlias

import typer

from swissbrain.cli.exit_codes import USAGE
from swissbrain.cli.explanations import explain
from swissbrain.cli.progress import MIN_ITEMS, progress
from swissbrain.cli.terminal import note, plain
from swissbrain.errors import ApiError, ClientError

THREADS = 8
SKIPPED = {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}
"""Refusals that concern one run alone; others, such as 403, would be the same for every run."""


Outcome: TypeAlias = str | ClientError | None
"""Line to print; why the run was not changed, or may not have been; None if it was not tried."""


@dataclass(frozen=True)
class BulkOptions:
    """Options of an action on several runs."""

    verb: str
    asks: bool
    yes: bool
    dry_run: bool


def for_each_run(run_ids: Sequence[str], act: Callable[[str], str], options: BulkOptions) -> None:
    """Act on each run once, and print the line that `act` returns.

    A run that is missing or in the wrong state is reported on stderr and skipped; the exit code is 2 in the end. After
    an error that concerns all of them, or an API that does not answer, the runs that were not reached are named.
    """
    count = f"{len(run_ids)} run{'' if len(run_ids) == 1 else 's'}"
    if options.dry_run:
        for run_id in run_ids:
            typer.echo(plain(run_id))
        note(f"would {options.verb} {count}")
        return
    if not run_ids:
        note(f"no run to {options.verb}")
        return
    # A script cannot answer.
    asks = options.asks and not options.yes and sys.stdin.isatty() and sys.stderr.isatty()
    if asks and not typer.confirm(f"{options.verb} {count}?", err=True):
        note("nothing was changed")
        raise typer.Exit(USAGE)
    reports: list[tuple[str, ClientError | None]] = []
    with _first_interrupt() as interrupted:
        _act_on_all(_outcomes(run_ids, act, interrupted), len(run_ids), options.verb, reports)
        if len(run_ids) == 1 and reports and reports[0][1]:
            raise reports[0][1]
        for run_id, error in reports:
            note(f"{run_id}: {explain(error) if error else 'not done'}")
    if interrupted.is_set():
        raise KeyboardInterrupt
    if reports:
        raise typer.Exit(USAGE)


def _act_on_all(
    outcomes: Iterable[tuple[str, Outcome]], total: int, verb: str, reports: list[tuple[str, ClientError | None]]
) -> None:
    """Print what was done, and collect the runs that were not changed, or may not have been, with the reason."""
    # One terminal cannot show both a bar and a line for each run.
    is_counted = total >= MIN_ITEMS and sys.stdout.isatty() and sys.stderr.isatty()
    with progress(verb, total) as advance:
        for run_id, outcome in outcomes:
            advance(1)
            if not isinstance(outcome, str):
                reports.append((run_id, outcome))
            elif not is_counted:
                typer.echo(plain(outcome))
    if is_counted:
        typer.echo(f"{verb}: {total - len(reports)} of {total} runs")


@contextmanager
def _first_interrupt() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets; the second raises KeyboardInterrupt."""
    # An exception could arise anywhere, also where it would lose the outcome of a run.
    interrupted = threading.Event()
    raises = signal.getsignal(signal.SIGINT)

    def note_it(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, raises)
        interrupted.set()

    if raises is not signal.default_int_handler:  # ignored, as in the background of a shell
        yield interrupted
        return
    signal.signal(signal.SIGINT, note_it)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, raises)


def _outcomes(
    run_ids: Sequence[str], act: Callable[[str], str], interrupted: threading.Event
) -> Iterator[tuple[str, Outcome]]:
    """Yield the outcome of each run, in order. Once `interrupted` is set, no further run is begun."""
    stop = threading.Event()

    def act_once(run_id: str) -> Outcome:
        if stop.is_set() or interrupted.is_set():
            return None
        try:
            return act(run_id)
        except ClientError as exc:
            if not (isinstance(exc, ApiError) and exc.status in SKIPPED):
                stop.set()
            return exc

    pool = ThreadPoolExecutor(THREADS if len(run_ids) > THREADS else 1)
    futures = [pool.submit(act_once, run_id) for run_id in run_ids]
    try:
        for run_id, future in zip(run_ids, futures, strict=True):
            yield run_id, future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
