"""Restart of a worker whose process was killed: its runs continue without waiting for their leases."""

import asyncio

from infra.contract.redis import Reply
from infra.contract.states import Status
from tests.support.waiting import until
from tests.worker.rig import Identity, Rig
from worker.toolkit.base import ToolContext

LONG_LEASE_S = 600.0


class Body:
    """Tool that waits in its first execution until it is killed, and succeeds in the second."""

    def __init__(self) -> None:
        self.executions = 0
        self.running = asyncio.Event()

    async def __call__(self, context: ToolContext, command: str) -> None:
        self.executions += 1
        if self.executions == 1:
            self.running.set()
            await asyncio.Event().wait()


async def outcomes(rig: Rig, run_id: str) -> list[str | None]:
    return [attempt.outcome for attempt in await rig.store.attempts(run_id)]


async def test_a_run_of_a_killed_process_continues_when_its_successor_starts(rig: Rig) -> None:
    body, killed = Body(), Identity()
    first = rig.worker(body, lease_s=LONG_LEASE_S, identity=killed)
    run_id = await rig.submit("x")
    await body.running.wait()
    await first.killed()

    successor = Identity(killed.process)
    rig.worker(body, lease_s=LONG_LEASE_S, identity=successor)

    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert await outcomes(rig, run_id) == ["worker_restarted", "succeeded"]
    assert successor.dead_processes == ()


async def test_names_of_dead_processes_are_sent_until_a_claim_is_answered(rig: Rig) -> None:
    body, killed = Body(), Identity()
    first = rig.worker(body, lease_s=LONG_LEASE_S, identity=killed)
    run_id = await rig.submit("x")
    await body.running.wait()
    await first.killed()
    lost = iter([True])

    successor = Identity(killed.process)
    rig.worker(body, lease_s=LONG_LEASE_S, identity=successor, loses=lambda name: name == "claim" and next(lost, False))

    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert successor.dead_processes == ()


async def test_a_process_that_is_not_known_to_have_ended_keeps_its_runs(rig: Rig) -> None:
    body = Body()
    rig.worker(body, lease_s=LONG_LEASE_S)
    run_id = await rig.submit("x")
    await body.running.wait()

    rig.worker(body, lease_s=LONG_LEASE_S, identity=Identity("0" * 16))
    other = await rig.submit("y")

    assert (await rig.ended(other)).status is Status.SUCCEEDED
    assert (await rig.store.get(run_id)).status is Status.RUNNING


async def test_a_run_that_lost_two_workers_in_a_row_waits_for_its_lease(rig: Rig) -> None:
    """A run that kills its workers must not use up the attempts of the runs beside it within seconds."""
    running = asyncio.Event()

    async def never(_context: ToolContext, _command: str) -> None:
        running.set()
        await asyncio.Event().wait()

    run_id, killed = await rig.submit("x"), Identity()
    for _ in range(2):
        worker = rig.worker(never, lease_s=LONG_LEASE_S, identity=killed)
        await running.wait()
        running.clear()
        await worker.killed()
        killed = Identity(killed.process)

    rig.worker(never, lease_s=LONG_LEASE_S, identity=killed)

    async def is_recovered() -> bool:
        return killed.dead_processes == ()

    await until(is_recovered, "the third process has claimed")
    assert await outcomes(rig, run_id) == ["worker_restarted", None]
    score: Reply = await rig.redis.command("ZSCORE", "jobs:leases", run_id)
    assert score is not None
