"""Time of a step whose worker is lost: it counts from the first start, and a program that has ended in time counts."""

import asyncio
import time
from collections.abc import Mapping
from types import MappingProxyType

import msgspec
import pytest
from msgspec import structs

from infra.contract.journal import StepRecord
from infra.contract.lending import OpenExecution
from infra.contract.runs import PlanStep, RunRecord
from infra.contract.states import Status
from tests.k8s_executor.rig import NAMESPACE
from tests.k8s_executor.test_runs import goes_on, has_no_pods, has_printed
from tests.k8s_executor.workers import ClusterWorker, WorkerRig
from tests.support.waiting import until
from worker.run import call_context

TIMEOUT_S = 1000.0
LEFT_S = 10
"""Time that is left when the next worker takes a run over; a busy machine needs some of it."""
FULL = MappingProxyType({"timeout_s": 3600})
WAITS = "echo one; while [ ! -e go ]; do sleep 0.05; done; echo two"


async def left_alone(runs: WorkerRig, own: Mapping[str, int] = FULL) -> tuple[str, ClusterWorker]:
    """Return a run whose worker has died while its program runs. `own`: timeout of the program."""
    first = runs.worker()
    step = PlanStep(tool="shell", args={"command": WAITS, **own}, timeout_s=TIMEOUT_S)
    run_id = await runs.submit(plan=[step], max_attempts=2)
    await has_printed(runs, run_id, 1)
    await first.die()
    return run_id, first


async def grows_older(runs: WorkerRig, run_id: str, seconds: float) -> None:
    """Let the call of a run have begun some seconds earlier."""
    key = runs.rig.store.keys.run(run_id)
    begun = msgspec.json.decode(str(await runs.rig.redis.command("HGET", key, "journal:execution")), type=OpenExecution)
    assert begun.call_began_ms
    older = structs.replace(begun, call_began_ms=begun.call_began_ms - int(1000 * seconds))
    await runs.rig.redis.command("HSET", key, "journal:execution", msgspec.json.encode(older).decode())


async def ended(runs: WorkerRig, run_id: str, first: ClusterWorker) -> RunRecord:
    """Return the record of a run that the next worker has ended."""
    runs.worker(after=first)
    return await runs.ended(run_id)


async def test_an_adopted_step_ends_at_its_own_time(runs: WorkerRig) -> None:
    run_id, first = await left_alone(runs)
    await grows_older(runs, run_id, TIMEOUT_S - 3)
    record = await ended(runs, run_id, first)
    assert record.error
    assert record.error.code == "timeout"
    assert record.error.message == "the step took longer than its timeout of 1000 s (`timeout_s` of the step)"
    await has_no_pods(runs)


async def test_a_program_that_ended_while_nobody_had_the_run_counts(runs: WorkerRig) -> None:
    run_id, first = await left_alone(runs)
    await goes_on(runs)

    async def over() -> bool:
        return all("conditions" in job["status"] for job in runs.cluster.server.objects("jobs", NAMESPACE))

    await until(over, "the program has ended")
    await grows_older(runs, run_id, 2 * TIMEOUT_S)
    record = await ended(runs, run_id, first)
    assert (record.status, await runs.output(run_id)) == (Status.SUCCEEDED, ["one", "two"])


async def test_the_times_of_an_adopted_step_count_from_its_first_start(runs: WorkerRig) -> None:
    run_id, first = await left_alone(runs)
    await grows_older(runs, run_id, 500)
    await asyncio.sleep(0.5)
    runs.worker(after=first)
    await goes_on(runs)
    record = await runs.ended(run_id)
    text = await runs.rig.redis.command("HGET", runs.rig.store.keys.run(run_id), "journal:step:0")
    step = msgspec.json.decode(str(text), type=StepRecord)
    assert record.started_ms
    assert step.started_ms
    assert step.started_ms < record.started_ms - 90_000
    assert step.duration_ms >= 500


@pytest.mark.parametrize("own", [{}, {"timeout_s": 3600}])
async def test_a_step_whose_program_is_lost_begins_its_time_anew(
    runs: WorkerRig, monkeypatch: pytest.MonkeyPatch, own: dict[str, int]
) -> None:
    # The time of the program must begin anew, too, and this slack would hide that it does not.
    monkeypatch.setattr(call_context, "LATE_S", 0.0)
    run_id, first = await left_alone(runs, own)
    (job,) = runs.cluster.jobs()
    runs.cluster.server.preempt(job)
    await grows_older(runs, run_id, TIMEOUT_S - LEFT_S)
    over_at = time.monotonic() + LEFT_S
    runs.worker(after=first)
    await has_printed(runs, run_id, 2)
    await asyncio.sleep(over_at + 1 - time.monotonic())
    await goes_on(runs)
    assert (await runs.ended(run_id)).status is Status.SUCCEEDED
    assert await runs.output(run_id) == ["one", "one", "two"]
