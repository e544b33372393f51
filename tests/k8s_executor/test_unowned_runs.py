"""Ends of runs that no worker owns: their programs end at once, and those of owners are left alone."""

import asyncio
import time
from typing import Any

import pytest

from infra.contract.browser import BrowserArgs
from infra.contract.execution import ExecLimits
from infra.contract.runs import PlanStep
from infra.contract.states import Status
from tests.k8s_executor.test_runs import goes_on, has_no_pods, has_printed
from tests.k8s_executor.test_sessions import MB, PROGRAM
from tests.k8s_executor.workers import ClusterWorker, WorkerRig
from tests.support.waiting import until
from worker.lease import StopReason
from worker.registry import REGISTRY
from worker.toolkit.base import SessionProgram, Tool, ToolContext, ToolResult

SLEEPS = "echo one; sleep 1000"
LONG_LEASE_S = 600.0
"""Lease that does not expire during a test."""


async def running(runs: WorkerRig, worker: ClusterWorker, program: str = SLEEPS, **spec: int) -> str:
    """Return a run whose program a worker has started."""
    run_id = await runs.submit(program, **spec)
    await has_printed(runs, run_id, 1)
    assert worker.worker.keeper.runs()
    return run_id


async def test_a_run_whose_worker_died_is_cancelled_long_before_its_lease_expires(runs: WorkerRig) -> None:
    first = runs.worker(lease_s=LONG_LEASE_S)
    run_id = await running(runs, first)
    await first.die()
    runs.worker()
    await runs.rig.store.cancel(run_id)
    assert (await runs.ended(run_id)).status is Status.CANCELLED
    await has_no_pods(runs)


async def test_a_worker_without_a_free_slot_ends_what_nobody_owns(runs: WorkerRig) -> None:
    first = runs.worker(lease_s=LONG_LEASE_S)
    run_id = await running(runs, first)
    await first.die()
    second = runs.worker(slots=1)
    other = await running(runs, second)
    await runs.rig.store.cancel(run_id)
    assert (await runs.ended(run_id)).status is Status.CANCELLED

    async def one() -> bool:
        return len(runs.cluster.jobs()) == 1

    await until(one, "the Job of the cancelled run is deleted, and that of the other run is not")
    assert (await runs.rig.store.get(other)).status is Status.RUNNING


async def browse(args: BrowserArgs, context: ToolContext) -> ToolResult:
    """Open a session in the first call; wait in the second one."""
    if context.session.program:
        await asyncio.sleep(1000)
    await context.session.open(SessionProgram(PROGRAM, MB, ExecLimits(), (), {}, {}))
    context.session.note = "https://example.org/"
    return ToolResult()


async def test_a_run_whose_only_pod_is_a_session_is_cancelled_without_its_worker(runs: WorkerRig) -> None:
    tools = dict(REGISTRY) | {"browser": Tool("browser", BrowserArgs, browse, idempotent=True)}
    first = runs.worker(lease_s=LONG_LEASE_S, tools=tools)
    steps = [PlanStep(tool="browser", args={"action": "wait"})] * 2
    run_id = await runs.submit(plan=steps)

    async def noted() -> bool:
        return "session" in await runs.rig.store.journal(run_id)

    await until(noted, "the session is open")
    (session,) = first.executor._sessions.values()
    # A worker that is killed neither closes its session nor gives a sign of life.
    for task in session._tasks:
        task.cancel()
    session.close = _nothing  # type: ignore[method-assign]
    await first.die()
    assert runs.cluster.jobs()
    runs.worker()
    await runs.rig.store.cancel(run_id)
    assert (await runs.ended(run_id)).status is Status.CANCELLED
    await has_no_pods(runs)


async def _nothing() -> None:
    return


async def test_a_queued_run_whose_program_still_runs_is_cancelled_with_its_program(runs: WorkerRig) -> None:
    first = runs.worker(grace_s=0)
    run_id = await running(runs, first)
    await first.worker.drained()
    await first.executor.close()
    # The next worker takes the run of the highest priority, and has no slot for the other one: it hears of the cancel.
    blocking = await runs.submit(SLEEPS, priority=8)
    other = runs.worker(slots=1)
    await has_printed(runs, blocking, 1)
    assert (await runs.rig.store.get(run_id)).status is Status.QUEUED
    await runs.rig.store.cancel(run_id)
    assert (await runs.rig.store.get(run_id)).status is Status.CANCELLED

    async def one() -> bool:
        return len(runs.cluster.jobs()) == 1

    await until(one, "the Job of the cancelled run is deleted")
    assert other.worker.keeper.runs()


async def test_a_run_that_fails_because_its_workers_died_leaves_no_program(runs: WorkerRig) -> None:
    first = runs.worker()
    run_id = await running(runs, first, max_attempts=1)
    await first.die()
    runs.worker(after=first)
    record = await runs.ended(run_id)
    assert record.error
    assert record.error.code == "worker_lost"
    await has_no_pods(runs)


async def test_a_cancel_before_any_worker_is_back_is_carried_out_by_the_first_one(runs: WorkerRig) -> None:
    first = runs.worker(grace_s=0)
    run_id = await running(runs, first)
    await first.worker.drained()
    await first.executor.close()
    await runs.rig.store.cancel(run_id)
    assert runs.cluster.jobs()
    # Its subscription begins after the message, so it looks for all programs without an owner.
    second = runs.worker()
    await second.executor.check()
    await has_no_pods(runs)


async def test_what_cannot_be_found_out_is_looked_at_again(runs: WorkerRig) -> None:
    first = runs.worker(grace_s=0)
    run_id = await running(runs, first)
    await first.worker.drained()
    await first.executor.close()
    third = runs.cluster.executor(installation=runs.installation, patience_s=0)
    await third.check()
    runs.cluster.server.faults.down = True
    third.end_unowned(run_id)
    await asyncio.sleep(0.5)
    assert runs.cluster.jobs()
    runs.cluster.server.faults.heal()
    began = time.monotonic()
    await has_no_pods(runs)
    assert time.monotonic() - began < 20


async def test_an_owner_is_not_disturbed(runs: WorkerRig) -> None:
    first, second = runs.worker(), runs.worker()
    run_id = await runs.submit("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two")
    await has_printed(runs, run_id, 1)
    # As if a message of an earlier end came late.
    await runs.rig.redis.command("PUBLISH", runs.rig.store.keys.control, f"ended {run_id}")
    for worker in (first, second):
        await worker.executor.reap()
    await asyncio.sleep(0.5)
    await goes_on(runs)
    assert (await runs.ended(run_id)).status is Status.SUCCEEDED
    assert await runs.output(run_id) == ["one", "two"]


async def test_an_owner_that_ends_its_program_slowly_keeps_its_lease(
    runs: WorkerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runs.worker()
    run_id = await running(runs, first)
    runs.worker()
    kill = first.executor._kill

    async def slowly(*args: Any) -> None:
        await asyncio.sleep(4)
        await kill(*args)

    monkeypatch.setattr(first.executor, "_kill", slowly)
    await runs.rig.store.cancel(run_id)
    record = await runs.ended(run_id)
    assert record.status is Status.CANCELLED
    assert [active.stop_reason for active in first.worker.keeper.runs()] in ([], [StopReason.CANCEL])
    assert [attempt.outcome for attempt in (await runs.rig.store.attempts(run_id))] == ["cancelled"]
    await has_no_pods(runs)
