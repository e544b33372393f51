"""Leases that expire unnoticed, and lost replies to claims and renewals."""

import asyncio
from collections.abc import Sequence

import pytest

from infra.contract.queue import Lease, LeaseReply
from infra.contract.states import Outcome, Status
from tests.support.waiting import until
from tests.worker.rig import Rig, ToolBody, Worker
from worker import lease
from worker.toolkit.base import ToolContext


async def test_work_stops_when_the_lease_expires_and_no_renewal_is_answered(rig: Rig) -> None:
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


async def test_a_claim_reply_that_arrives_after_the_lease_expired_begins_no_step(rig: Rig) -> None:
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

    async def has_abandoned_it() -> bool:
        return claims > 0 and len(late.keeper) == 0

    await until(has_abandoned_it, "the reply reaches the first worker, which abandons the run")
    assert calls == ["one", "two"]


async def test_a_run_reclaimed_by_its_worker_begins_after_the_earlier_attempt_has_ended(rig: Rig) -> None:
    seen: list[str] = []

    async def body(context: ToolContext, command: str) -> None:
        seen.append("begins")
        try:
            await asyncio.sleep(600 if len(seen) == 1 else 0)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            seen.append("ends")
            raise

    rig.worker(body, lease_s=600)
    run_id = await rig.submit("endless")

    async def begun() -> bool:
        return bool(seen)

    await until(begun, "the run begins")
    await rig.redis.command("ZADD", rig.store.keys.leases, 1, run_id)
    await rig.redis.command("RPUSH", rig.store.keys.pending, "wake")
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert seen == ["begins", "ends", "begins"]


async def test_a_lost_claim_reply_costs_neither_an_attempt_nor_a_lease(rig: Rig) -> None:
    """No token wakes the worker, and control messages meanwhile move its alarm to later."""
    calls: list[str] = []
    claims = to_lose = 0

    async def record(context: ToolContext, command: str) -> None:
        calls.append(command)

    def loses(script: str) -> bool:
        nonlocal claims, to_lose
        if script != "claim":
            return False
        claims, to_lose = claims + 1, max(to_lose - 1, 0)
        return to_lose > 0

    rig.worker(record, lease_s=600, loses=loses)

    async def has_claimed() -> bool:
        return claims > 1  # at its start, and once it hears the control channel

    await until(has_claimed, "the worker has claimed")
    to_lose = 4  # three claims: the one that answers is the fourth
    run_id = await rig.submit("one", max_attempts=1)

    async def succeeded_although_told_to_wait() -> bool:
        await rig.redis.command("PUBLISH", rig.store.keys.control, "next 600000")
        return (await rig.store.get(run_id)).status is Status.SUCCEEDED

    await until(succeeded_although_told_to_wait, "the run is done")
    assert calls == ["one"]
    assert [(each.attempt, each.outcome) for each in await rig.store.attempts(run_id)] == [
        (1, "unanswered"),
        (1, "succeeded"),
    ]


async def test_a_run_too_large_for_any_reply_affects_no_other_run(rig: Rig) -> None:
    doomed = await rig.submit("doomed", max_attempts=2)
    others = [await rig.submit(f"run {number}", max_attempts=1) for number in range(3)]

    async def nothing(context: ToolContext, command: str) -> None:
        return

    rig.worker(nothing, lease_s=600, undeliverable=doomed)
    assert [(await rig.ended(run_id)).status for run_id in others] == [Status.SUCCEEDED] * 3
    ended = await rig.ended(doomed)
    assert ended.error
    assert (ended.status, ended.error.code) == (Status.FAILED, "worker_lost")


async def test_an_undecodable_record_fails_its_run_and_not_its_worker(rig: Rig) -> None:
    async def nothing(context: ToolContext, command: str) -> None:
        return

    broken = await rig.submit("one", max_attempts=1)
    await rig.redis.command("HSET", rig.store.keys.run(broken), "spec", '{"plan":[]}')
    worker = rig.worker(nothing)
    assert (await rig.ended(await rig.submit("one"))).status is Status.SUCCEEDED
    head = await rig.store.head(broken)
    assert head.error
    assert (head.status, head.error.code) == (Status.FAILED, "unreadable_record")
    assert not worker.task.done()


async def test_a_draining_worker_releases_the_runs_of_a_lost_claim_reply(rig: Rig) -> None:
    """Draining begins right after the lost reply."""

    async def nothing(context: ToolContext, command: str) -> None:
        return

    claims = 0

    def loses(script: str) -> bool:
        nonlocal claims
        claims += script == "claim"
        if script == "claim" and claims == 1:
            worker.loop.drain()
            return True
        return False

    run_id = await rig.submit("one", max_attempts=1)
    worker = rig.worker(nothing, lease_s=600, loses=loses)
    await asyncio.wait_for(worker.task, 20)
    assert [each.outcome for each in await rig.store.attempts(run_id)] == ["unanswered"]
    rig.worker(nothing)
    assert ((await rig.ended(run_id)).status, (await rig.store.get(run_id)).attempt) == (Status.SUCCEEDED, 1)


async def test_a_lost_renewal_reply_costs_no_lease(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The renewal is repeated before the lease expires."""
    monkeypatch.setattr(lease, "RETRY_S", 0.1)
    go = asyncio.Event()
    renewals = 0

    async def body(context: ToolContext, command: str) -> None:
        await go.wait()

    def late_s(script: str) -> float:
        nonlocal renewals
        renewals += script == "renew"
        return 600 if script == "renew" and renewals == 1 else 0

    worker = rig.worker(body, lease_s=30, renew_s=0.1, late_s=late_s)
    run_id = await rig.submit("long", max_attempts=1)

    async def held() -> bool:
        return len(worker.keeper) == 1

    await until(held, "the run is held")
    (active,) = worker.keeper.runs()
    first = active.valid_until

    async def renewed() -> bool:
        return active.valid_until > first

    await until(renewed, "the second renewal is answered")
    go.set()
    run = await rig.ended(run_id)
    assert (run.status, run.fence) == (Status.SUCCEEDED, 1)


async def test_a_delayed_run_created_during_a_claim_begins_in_time(rig: Rig) -> None:
    claims = 0

    def late_s(script: str) -> float:
        nonlocal claims
        claims += script == "claim"
        return 2 if script == "claim" and claims == 2 else 0

    async def nothing(context: ToolContext, command: str) -> None:
        return

    rig.worker(nothing, late_s=late_s)

    async def has_claimed_again() -> bool:
        await rig.redis.command("PUBLISH", rig.store.keys.control, "due 0")
        return claims >= 2

    await until(has_claimed_again, "a second claim waits for its reply, which does not include the run")
    run_id = await rig.submit("soon", delay_s=0.5)
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED


async def test_a_cancel_during_a_renewal_is_followed_by_another_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may have executed the renewal first, and the cancel has shortened the lease since."""
    monkeypatch.setattr(lease, "CANCELLED_S", 0.01)
    renewals = 0

    class Store:
        async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> list[LeaseReply]:
            nonlocal renewals
            renewals += 1
            if renewals == 1:
                keeper.cancel("run")
            return [LeaseReply(outcome=Outcome.OK, cancel=True) for _ in leases]

    keeper = lease.LeaseKeeper(Store(), lease_s=600)  # type: ignore[arg-type]
    keeper.add(lease.ActiveRun(Lease("run", 1, "ada"), 600))
    renewing = asyncio.create_task(keeper.renew_forever())
    await asyncio.sleep(0.01)
    keeper.cancel("run")

    async def renewed_twice() -> bool:
        return renewals == 2

    await until(renewed_twice, "the lease is renewed again")
    renewing.cancel()


async def test_a_worker_whose_claim_redis_has_lost_leaves_the_run_to_its_new_owner(rig: Rig) -> None:
    """As after a failover to a replica that was behind: both claims have the same fence."""
    seen: list[str] = []
    go = asyncio.Event()

    def body_of(name: str) -> ToolBody:
        async def body(context: ToolContext, command: str) -> None:
            seen.append(f"{name} {command}")
            await context.output("stdout", f"{name} {command}")
            if command == "wait":
                await go.wait()

        return body

    run_id = await rig.submit("one", "wait", "two")
    key = rig.store.keys.run(run_id)
    before = await rig.redis.command("HGETALL", key)
    assert isinstance(before, list)
    first = rig.worker(body_of("first"), slots=1)

    async def waits() -> bool:
        return seen[-1:] == ["first wait"]

    await until(waits, "the first worker is at its second step")
    await rig.redis.command("DEL", key, rig.store.keys.log(run_id), rig.store.keys.leases)
    await rig.redis.command("HSET", key, *map(str, before))
    await rig.redis.command("ZADD", rig.store.keys.ready, 1, run_id)
    rig.worker(body_of("second"), slots=1)

    async def waits_again() -> bool:
        return seen[-1:] == ["second wait"]

    await until(waits_again, "the second worker is at its second step")
    go.set()
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    await until(lambda: _given_up(first), "the first worker has given up")
    assert seen == ["first one", "first wait", "second one", "second wait", "second two"]
    texts = [event.data["text"] for event in await rig.log(run_id) if event.type == "tool.output"]
    assert texts == ["second one", "second wait", "second two"]


async def _given_up(worker: Worker) -> bool:
    return len(worker.keeper) == 0
