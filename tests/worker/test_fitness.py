"""Badly set up workers: they leave the queue to the others, and give back what they are unable to do."""

import asyncio
import logging
import threading
import time

import pytest

from infra.contract.errors import ExecutorUnavailable, FilesUnavailable
from infra.contract.runs import MAX_UNABLE
from infra.contract.states import Status
from tests.support.waiting import until
from tests.worker.rig import Rig
from worker import fitness as fitness_module
from worker import verdict
from worker.fitness import Fitness
from worker.queue import loop
from worker.toolkit.base import ToolContext

REASON = "the object store answered 403"
MISSING = "'node' is not installed on this worker's host"


class Part:
    """Part of a worker that works or not; its check takes no time."""

    def __init__(self, *, works: bool) -> None:
        self.works = works
        self.checked = 0

    async def check(self) -> None:
        self.checked += 1
        if not self.works:
            raise FilesUnavailable(REASON)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness_module, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(fitness_module, "MAX_RETRY_S", 0.05)
    monkeypatch.setattr(loop, "UNABLE_BACKOFF_S", 0.02)
    monkeypatch.setattr(verdict, "UNABLE_DELAY_MS", 1)


async def well(context: ToolContext, command: str) -> None:
    return


async def lacks_node(context: ToolContext, command: str) -> None:
    if command.startswith("node"):
        raise ExecutorUnavailable(MISSING)


async def workers_and_outcomes(rig: Rig, run_id: str) -> list[tuple[str, int, str | None]]:
    return [(one.worker, one.attempt, one.outcome) for one in await rig.store.attempts(run_id)]


async def test_pauses_between_checks_double_up_to_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    part = Part(works=False)
    here, sleep = threading.get_ident(), asyncio.sleep

    async def slept(seconds: float) -> None:
        # Servers of other tests may run in threads of this process.
        if threading.get_ident() != here:
            await sleep(seconds)
            return
        pauses.append(seconds)
        part.works = len(pauses) == 9

    monkeypatch.undo()
    monkeypatch.setattr(asyncio, "sleep", slept)
    caplog.set_level(logging.INFO)
    fitness = Fitness({"object store": part.check})
    async with asyncio.TaskGroup() as group:
        checking = group.create_task(fitness.check_forever())
        await fitness.until_fit()
        checking.cancel()
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    unfit = [record.fields for record in caplog.records if record.message == "worker.unfit"]  # type: ignore[attr-defined]
    assert unfit[0] == {"part": "object store", "reason": REASON, "retry_s": 1.0}
    assert [record.message for record in caplog.records].count("worker.fit") == 1


@pytest.mark.parametrize("error", [FilesUnavailable(REASON), PermissionError(13, "Permission denied"), TimeoutError()])
async def test_a_check_that_fails_or_hangs_is_a_problem_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def check() -> None:
        if isinstance(error, TimeoutError):
            await asyncio.sleep(60)
        raise error

    monkeypatch.setattr(fitness_module, "CHECK_S", 0.05)
    fitness = Fitness({"sandbox": check, "other": Part(works=True).check})

    async def has_problem() -> bool:
        return bool(fitness.problem)

    checking = asyncio.create_task(fitness.check_forever())
    await until(has_problem, "the problem is named")
    assert not fitness.is_fit
    assert fitness.problem.startswith("sandbox: ")
    assert [fitness.passed(part) for part in fitness.parts] == [False, True]
    assert not checking.done()
    checking.cancel()


async def test_an_unfit_worker_claims_nothing_until_its_checks_pass(rig: Rig) -> None:
    part = Part(works=False)
    unfit = rig.worker(well, fitness=Fitness({"object store": part.check}))
    waiting = [await rig.submit("x") for _ in range(3)]

    async def checked_again() -> bool:
        return part.checked > 3

    await until(checked_again, "the worker is checked again and again")
    assert [await rig.store.attempts(run_id) for run_id in waiting] == [[], [], []]
    rig.worker(well)
    for run_id in waiting:
        assert (await rig.ended(run_id)).status is Status.SUCCEEDED
        assert await workers_and_outcomes(rig, run_id) == [("w1", 1, "succeeded")]
    part.works = True
    await rig._workers[1].drained()
    assert (await rig.ended(await rig.submit("x"))).status is Status.SUCCEEDED
    await unfit.drained()


async def test_an_unfit_worker_recovers_runs_shows_that_redis_replies_and_drains(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MAX_BLOCK_S", 0.05)
    unfit = rig.worker(well, fitness=Fitness({"object store": Part(works=False).check}))

    def last_beat() -> float:
        return round(time.monotonic() - unfit.keeper.heartbeat.age_s(), 2)

    async def beats_again() -> bool:
        return last_beat() > before

    for _ in range(3):
        before = last_beat()
        await until(beats_again, "Redis replies again")
    await unfit.drained()


async def test_a_worker_whose_store_fails_meanwhile_leaves_the_queue_to_others(rig: Rig) -> None:
    part = Part(works=True)

    async def fail(context: ToolContext, command: str) -> None:
        if not part.works:
            raise FilesUnavailable(REASON)

    unfit = rig.worker(fail, fitness=Fitness({"object store": part.check}))
    assert (await rig.ended(await rig.submit("x"))).status is Status.SUCCEEDED
    part.works = False
    first = await rig.submit("x", max_attempts=1)
    assert (await rig.ended(first)).status is Status.FAILED

    async def is_idle() -> bool:
        return len(unfit.keeper) == 0

    await until(is_idle, "the worker has no run")
    others = [await rig.submit("x", max_attempts=1) for _ in range(5)]
    await asyncio.sleep(0.3)
    rig.worker(well)
    for run_id in others:
        assert await workers_and_outcomes(rig, (await rig.ended(run_id)).id) == [("w1", 1, "succeeded")]


async def test_a_run_that_a_worker_is_unable_to_do_is_done_by_another(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "UNABLE_BACKOFF_S", 600.0)
    rig.worker(lacks_node)
    run_id = await rig.submit("sh", "node", max_attempts=1)

    async def given_back() -> bool:
        return "run.requeued" in await rig.kinds(run_id)

    await until(given_back, "the run is given back")
    rig.worker(well)
    run = await rig.ended(run_id)
    assert (run.status, run.attempt, run.unable) == (Status.SUCCEEDED, 1, 0)
    assert await workers_and_outcomes(rig, run_id) == [("w0", 1, "unable"), ("w1", 1, "succeeded")]
    log = await rig.log(run_id)
    assert [event.step for event in log if event.type == "step.finished"] == [0, 1]
    requeued = [event.data for event in log if event.type == "run.requeued"]
    assert requeued[0] == {"reason": "unable", "delay_ms": 1, "message": MISSING}


async def test_one_able_worker_among_four_is_enough(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "UNABLE_BACKOFF_S", 1.0)
    monkeypatch.setattr(verdict, "UNABLE_DELAY_MS", 500)
    for body in (lacks_node, lacks_node, lacks_node, well):
        rig.worker(body)
    runs = [await rig.submit("node", max_attempts=1) for _ in range(12)]
    for run_id in runs:
        assert (await rig.ended(run_id)).status is Status.SUCCEEDED, await workers_and_outcomes(rig, run_id)


async def test_a_run_that_no_worker_is_able_to_do_fails_after_five_in_a_row(rig: Rig) -> None:
    for _ in range(2):
        rig.worker(lacks_node)
    run = await rig.ended(await rig.submit("sh", "node"))
    assert run.error
    assert (run.status, run.attempt, run.unable) == (Status.FAILED, 1, MAX_UNABLE)
    assert (run.error.code, run.error.message, run.error.step) == ("executor_unavailable", MISSING, 1)
    outcomes = [outcome for _, _, outcome in await workers_and_outcomes(rig, run.id)]
    assert outcomes == ["unable"] * MAX_UNABLE + ["failed"]
    delays = [event.data["delay_ms"] for event in await rig.log(run.id) if event.type == "run.requeued"]
    assert delays == [1, 2, 4, 8, 16]

    await rig.store.retry(run.id, token="t")
    again = await rig.ended(run.id)
    assert len(await rig.store.attempts(run.id)) == 2 * (MAX_UNABLE + 1)
    assert (again.status, again.unable) == (Status.FAILED, MAX_UNABLE)


async def test_progress_ends_a_row_of_unable_workers(rig: Rig) -> None:
    """Each step is refused four times before it is done, as by a worker that lacks a program for a while."""
    refused: dict[str, int] = {}

    async def refuse(context: ToolContext, command: str) -> None:
        refused[command] = refused.get(command, 0) + 1
        if refused[command] < MAX_UNABLE:
            raise ExecutorUnavailable(MISSING)

    rig.worker(refuse)
    run = await rig.ended(await rig.submit("a", "b", "c", max_attempts=1))
    assert (run.status, run.attempt, run.unable) == (Status.SUCCEEDED, 1, 0)
    assert len(await rig.store.attempts(run.id)) == 3 * (MAX_UNABLE - 1) + 1


async def test_a_worker_that_was_unable_is_checked_again(rig: Rig) -> None:
    part = Part(works=True)
    rig.worker(lacks_node, fitness=Fitness({"sandbox": part.check}))
    await rig.ended(await rig.submit("node"))

    async def checked_after_each() -> bool:
        return part.checked == 1 + MAX_UNABLE

    await until(checked_after_each, "each failure is followed by a check")
