"""Command `wait`."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_any
from typing import Annotated

import typer

from swissbrain import Client
from swissbrain.cli.access import connect
from swissbrain.cli.explanations import explain
from swissbrain.cli.options import Json
from swissbrain.cli.output import CANCELLED, FAILED, NOT_ENDED, USAGE, note, print_json
from swissbrain.cli.selection import given_ids
from swissbrain.cli.terminal import plain
from swissbrain.cli.times import seconds
from swissbrain.errors import ClientError, WaitTimeout
from swissbrain.models import Run

THREADS = 16


def wait(
    run_ids: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Ids of runs; - reads them from standard input.")
    ],
    timeout_s: Annotated[
        float | None,
        typer.Option("--timeout", parser=seconds, metavar="DURATION", help="Longest time to wait, such as 10m."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Wait until runs have ended, and print how. The runs go on after a timeout."""
    codes = set()
    with connect(note) as client:
        for run_id, outcome in _outcomes(client, given_ids(run_ids), timeout_s):
            if isinstance(outcome, Run):
                codes.add({"succeeded": 0, "failed": FAILED, "cancelled": CANCELLED}.get(outcome.status, NOT_ENDED))
                print_json(outcome) if as_json else typer.echo(plain(f"{run_id} {outcome.status}"))
            else:
                codes.add(NOT_ENDED if isinstance(outcome, WaitTimeout) else USAGE)
                note(f"{run_id}: {explain(outcome)}")
    raise typer.Exit(next((code for code in (USAGE, FAILED, CANCELLED, NOT_ENDED) if code in codes), 0))


def _outcomes(
    client: Client, run_ids: Sequence[str], timeout_s: float | None
) -> Iterator[tuple[str, Run | ClientError]]:
    """Yield each run as soon as it has ended, or the reason why that is not known."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def wait_one(run_id: str) -> Run | ClientError:
        try:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            return client.wait(run_id, timeout_s=left_s)
        except ClientError as exc:
            return exc

    pool = ThreadPoolExecutor(THREADS)
    try:
        waiting: dict[Future[Run | ClientError], str] = {pool.submit(wait_one, run_id): run_id for run_id in run_ids}
        while waiting:
            for future in wait_for_any(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
    finally:
        # Not waited for after Ctrl-C: a request that the API holds back lasts up to 20 s.
        pool.shutdown(wait=False, cancel_futures=True)
