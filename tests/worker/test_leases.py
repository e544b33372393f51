"""Leases that end while the worker does not know it."""

import asyncio

from infra.contract.states import Status
from tests.support.waiting import until
from tests.worker.rig import Rig
from worker.tools.base import ToolContext


async def test_work_stops_when_the_lease_ends_even_if_the_renewal_is_never_answered(rig: Rig) -> None:
    stopped = asyncio.Event()
    begun = asyncio.Event()

    async def body(context: ToolContext, command: str) -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            stopped.set()
            raise

    rig.worker(body, lease_s=0.5, late_s=lambda script: 600 if script == "renew" else 0)
    await rig.submit("endless")
    await asyncio.wait_for(begun.wait(), 20)
    await asyncio.wait_for(stopped.wait(), 20)


async def test_a_claim_that_comes_later_than_its_lease_ends_begins_nothing(rig: Rig) -> None:
    calls: list[str] = []
    claims = 0

    async def record(context: ToolContext, command: str) -> None:
        calls.append(command)

    def late_s(script: str) -> float:
        nonlocal claims
        claims += script == "claim"
        return 3 if script == "claim" else 0

    late = rig.worker(record, lease_s=0.5, late_s=late_s)
    run_id = await rig.submit("one", "two")

    async def claimed() -> bool:
        return (await rig.store.get(run_id)).status is Status.RUNNING

    await until(claimed, "the first worker claims it")
    claims = 0
    rig.worker(record)
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert calls == ["one", "two"]

    async def has_left_it() -> bool:
        return claims > 0 and len(late.keeper) == 0

    await until(has_left_it, "the answer reaches the first worker, which leaves the run")
    assert calls == ["one", "two"]


async def test_a_run_that_comes_back_to_its_worker_begins_once_the_old_attempt_is_over(rig: Rig) -> None:
    seen: list[str] = []

    async def body(context: ToolContext, command: str) -> None:
        seen.append("begins")
        try:
            await asyncio.sleep(600 if len(seen) == 1 else 0)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            seen.append("is dead")
            raise

    rig.worker(body, lease_s=600)
    run_id = await rig.submit("endless")

    async def begun() -> bool:
        return bool(seen)

    await until(begun, "it begins")
    await rig.redis.command("ZADD", rig.store.keys.leases, 1, run_id)
    await rig.redis.command("RPUSH", rig.store.keys.pending, "wake")
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert seen == ["begins", "is dead", "begins"]
