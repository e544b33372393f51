"""Changes of many runs by the command, against the real API, while the runs change state."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.contract.queue import Claim, Lease, Writes
from infra.contract.states import Status
from swissbrain import Client, NewRun, Run
from swissbrain.access import TOKEN as TOKEN_VARIABLE
from swissbrain.access import URL
from swissbrain.models import RunSummary
from tests.client.real_api import PLAN, Real
from tests.edge.stack import TOKENS, SimulatedWorker, finished


@pytest.fixture
def ada(real: Real, worker: SimulatedWorker) -> Iterator[Client]:
    with Client(real.url, TOKENS["ada"]) as client:
        yield client


RUNS = int(os.environ.get("BULK_RUNS", "150"))


def create(ada: Client, count: int, *, start: bool = True) -> list[str]:
    made = ada.create_many([NewRun(plan=PLAN, metadata={"kind": "bulk"}, start=start) for _ in range(count)])
    assert all(isinstance(run, Run) for run in made)
    return [run.run_id for run in made if isinstance(run, Run)]


def swissbrain(real: Real, folder: Path, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swissbrain", *words],
        cwd=folder,
        env={**os.environ, URL: real.url, TOKEN_VARIABLE: TOKENS["ada"]},
        input=typed,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def changed_and_named(result: subprocess.CompletedProcess[str]) -> tuple[list[str], list[str]]:
    """Return the ids that the command says it has changed, and those that it names on stderr."""
    done = [line.split()[0] for line in result.stdout.splitlines()]
    lines = [line.split()[1].rstrip(":") for line in result.stderr.splitlines()]
    # A busy machine may have ended all runs before they are listed: the command says that no run matches.
    return done, [word for word in lines if word != "no"]


@pytest.mark.parametrize("by", ["filter", "standard input"])
@pytest.mark.timeout(900)
def test_each_run_that_changes_state_meanwhile_is_cancelled_once_or_named(
    real: Real, worker: SimulatedWorker, ada: Client, tmp_path: Path, by: str
) -> None:
    ids = create(ada, RUNS)
    stop = threading.Event()

    def work() -> int:
        """Claim and end runs as fast as possible; those that were cancelled meanwhile are gone."""
        ended = 0
        while not stop.is_set():
            claims = real.do(worker.store.claim("simulated", 1, lease_ms=60_000)).claims
            if not claims:
                return ended
            real.do(_finish(worker, claims[0]))
            ended += 1
        return ended

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        words = ("--metadata", "kind=bulk", "--yes") if by == "filter" else ("-",)
        result = swissbrain(real, tmp_path, "cancel", *words, typed="\n".join([*ids, *ids[:10]]))
        stop.set()
        ended = working.result(60)
    done, named = changed_and_named(result)
    assert len({*done, *named}) == len(done) + len(named), "no run is reported twice"
    statuses = {run.run_id: run.status for run in ada.runs()}
    # Those that had ended before the list was made are in no filter.
    assert {*done, *named} <= set(ids)
    if by == "standard input":
        assert {*done, *named} == set(ids)
    assert {statuses[run_id] for run_id in named} <= {"succeeded"}
    assert {run_id for run_id, status in statuses.items() if status == "cancelled"} <= set(done)
    unreported = set(ids) - {*done, *named}
    assert {statuses[run_id] for run_id in unreported} <= {"succeeded"}
    assert ended > 0
    assert result.returncode == (2 if named else 0)


async def _finish(worker: SimulatedWorker, claim: Claim) -> None:
    lease = Lease(claim.run.id, claim.run.fence)
    await worker.store.finish(lease, Status.SUCCEEDED, Writes(events=[finished(Status.SUCCEEDED)]), result={})


def test_runs_are_retried_and_deleted_by_filters(
    real: Real, worker: SimulatedWorker, ada: Client, tmp_path: Path
) -> None:
    ids = create(ada, 30)
    others = create(ada, 3, start=False)
    assert swissbrain(real, tmp_path, "cancel", "--status", "queued").returncode == 0
    done, named = changed_and_named(swissbrain(real, tmp_path, "retry", "--metadata", "kind=bulk"))
    assert (sorted(done), named) == (sorted(ids), [])
    assert swissbrain(real, tmp_path, "cancel", "--status", "queued").returncode == 0
    assert swissbrain(real, tmp_path, "delete", "--created-before", "1h").stdout == ""
    dry = swissbrain(real, tmp_path, "delete", "--metadata", "kind=bulk", "--dry-run")
    assert sorted(dry.stdout.split()) == sorted(ids)
    done, named = changed_and_named(swissbrain(real, tmp_path, "delete", "--metadata", "kind=bulk"))
    assert (sorted(done), named) == (sorted(ids), [])
    # A run that was only created may be waiting for its files.
    assert _ids(ada.runs()) == set(others)


def _ids(runs: Iterable[RunSummary]) -> set[str]:
    return {run.run_id for run in runs}
