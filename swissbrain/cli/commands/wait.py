"""Command `wait`."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from swissbrain.callbacks import Notify
from swissbrain.cli.access import connect
from swissbrain.cli.completion import run_ids as complete_run_ids
from swissbrain.cli.exit_codes import CANCELLED, FAILED, NOT_ENDED, OUTCOMES, USAGE
from swissbrain.cli.explanations import explain
from swissbrain.cli.options import Json
from swissbrain.cli.output import print_json
from swissbrain.cli.selection import given_ids
from swissbrain.cli.terminal import note, plain
from swissbrain.cli.times import seconds
from swissbrain.errors import ClientError, WaitTimeout
from swissbrain.models import Run

if TYPE_CHECKING:
    from swissbrain import Client

THREADS = 16


def wait(
    run_ids: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Ids of runs; - reads them from standard input.", autocompletion=complete_run_ids
        ),
    ],
    timeout_s: Annotated[
        float | None,
        typer.Option("--timeout", parser=seconds, metavar="DURATION", help="Longest time to wait, such as 10m."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Wait until runs have ended, and print how. A timeout does not stop the runs."""
    codes = set()
    with connect(_unrepeated(note)) as client:
        for run_id, outcome in _outcomes(client, given_ids(run_ids), timeout_s):
            if isinstance(outcome, Run):
                codes.add(OUTCOMES.get(outcome.status, NOT_ENDED))
                print_json(outcome) if as_json else typer.echo(plain(f"{run_id} {outcome.status}"))
                if outcome.error and outcome.result is not None and not as_json:
                    note(f"{run_id} has a partial result; 'swissbrain show {run_id}' shows it")
            elif isinstance(outcome, WaitTimeout):
                codes.add(NOT_ENDED)
                note(f"{run_id} has not ended; it is {outcome.run.status}")
            else:
                codes.add(USAGE)
                note(f"{run_id}: {explain(outcome)}")
    raise typer.Exit(next((code for code in (USAGE, FAILED, CANCELLED, NOT_ENDED) if code in codes), 0))


def _unrepeated(notify: Notify) -> Notify:
    """Return a callback that leaves out the lines that other waits have just given."""
    last = [""]

    def once(line: str) -> None:
        if [line] != last:
            last[:] = [line]
            notify(line)

    return once


def _outcomes(
    client: "Client", run_ids: Sequence[str], timeout_s: float | None
) -> Iterator[tuple[str, Run | ClientError]]:
    """Yield each run as soon as it has ended, or the reason why that is not known."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s

    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, Run | BaseException]] = queue.SimpleQueue()

    def wait_for_some() -> None:
        with suppress(queue.Empty):
            while True:
                run_id = waiting.get_nowait()
                try:
                    left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                    done.put((run_id, client.wait(run_id, timeout_s=left_s)))
                except BaseException as exc:  # noqa: BLE001 - raised again in the main thread
                    done.put((run_id, exc))

    for run_id in run_ids:
        waiting.put(run_id)
    for _ in range(min(THREADS, len(run_ids))):
        # Daemons, because the API may hold a request back for 20 s, and Ctrl-C must end the command before.
        threading.Thread(target=wait_for_some, daemon=True).start()
    for _ in run_ids:
        run_id, outcome = done.get()
        if not isinstance(outcome, Run | ClientError):
            raise outcome
        yield run_id, outcome
