"""Damaged records: one of them never takes the runs beside it along, whichever part of a claim meets it."""

from collections.abc import Awaitable, Callable

import pytest

from infra.contract.errors import RecordUnreadable, StoreRejected
from infra.contract.queue import ClaimSeq, Lease, Writes
from infra.contract.redis import Redis
from infra.contract.runs import RunSpec
from infra.contract.states import Outcome, Status
from tests.contract.driver import END, LEASE_MS, SPEC, USER, Driver, delete, expire_request, strings
from tests.support.requests import answers

Damage = Callable[[Redis, str], Awaitable[object]]


def without(field: str) -> Damage:
    return lambda redis, run_id: redis.command("HDEL", f"run:{run_id}", field)


def with_value(field: str, value: str) -> Damage:
    return lambda redis, run_id: redis.command("HSET", f"run:{run_id}", field, value)


async def not_a_hash(redis: Redis, run_id: str) -> None:
    await redis.command("DEL", f"run:{run_id}")
    await redis.command("SET", f"run:{run_id}", "garbage")


async def log_not_a_stream(redis: Redis, run_id: str) -> None:
    await redis.command("DEL", f"run:{run_id}:log")
    await redis.command("SET", f"run:{run_id}:log", "garbage")


async def log_ahead_of_the_record(redis: Redis, run_id: str) -> None:
    await redis.command("XADD", f"run:{run_id}:log", "999-0", "b", "{}")


READY: dict[str, Damage] = {
    "no id": without("id"),
    "id of another run": with_value("id", "run_other"),
    "no version": without("v"),
    "version is text": with_value("v", "new"),
    "no status": without("status"),
    "unknown status": with_value("status", "paused"),
    "no queued_ms": without("queued_ms"),
    "queued_ms is text": with_value("queued_ms", "soon"),
    "no fence": without("fence"),
    "fence is text": with_value("fence", "x"),
    "no attempt": without("attempt"),
    "no seq": without("seq"),
    "seq is text": with_value("seq", "abc"),
    "queue_ttl_ms is text": with_value("queue_ttl_ms", "soon"),
    "not a hash": not_a_hash,
    "log is no stream": log_not_a_stream,
    "log is ahead": log_ahead_of_the_record,
}
LEASED: dict[str, Damage] = {
    name: READY[name]
    for name in ("no version", "no attempt", "no seq", "seq is text", "not a hash", "log is no stream")
} | {
    "no status": without("status"),
    "unknown status": with_value("status", "paused"),
    "no max_attempts": without("max_attempts"),
    "no priority": without("priority"),
    "priority is text": with_value("priority", "high"),
}


async def is_set_aside(driver: Driver, run_id: str) -> None:
    """Assert that the run is in no part of the queue but the list of unreadable runs, and expires."""
    redis = driver.redis
    for key in ("jobs:ready", "jobs:delayed", "jobs:leases"):
        assert run_id not in strings(await redis.command("ZRANGE", key, 0, -1)), key
    assert strings(await redis.command("ZRANGE", "jobs:unreadable", 0, -1)) == [run_id]
    assert await redis.command("TTL", f"run:{run_id}") != -1
    assert (await driver.store.depths()).unreadable == 1


@pytest.mark.parametrize("damage", READY.values(), ids=READY)
async def test_a_damaged_ready_run_is_set_aside_and_its_neighbours_are_granted(driver: Driver, damage: Damage) -> None:
    first, broken, last = [await driver.create() for _ in range(3)]
    await damage(driver.redis, broken)

    reply = await driver.store.claim("w", 3, lease_ms=LEASE_MS)

    assert [claim.run.id for claim in reply.claims] == [first, last]
    assert list(reply.set_aside) == [broken]
    assert reply.set_aside[broken]
    await is_set_aside(driver, broken)
    again = await driver.store.claim("w", 3, lease_ms=LEASE_MS)
    assert (again.claims, dict(again.set_aside)) == ([], {})


@pytest.mark.parametrize("damage", LEASED.values(), ids=LEASED)
async def test_a_damaged_leased_run_does_not_stop_the_recovery_of_the_others(driver: Driver, damage: Damage) -> None:
    ids = [await driver.create() for _ in range(3)]
    assert len((await driver.store.claim("lost", 3, lease_ms=1)).claims) == 3
    await damage(driver.redis, ids[1])
    await driver.let_lease_expire(3)

    reply = await driver.store.claim("w", 3, lease_ms=LEASE_MS)

    assert {claim.run.id for claim in reply.claims} == {ids[0], ids[2]}
    assert list(reply.set_aside) == [ids[1]]
    await is_set_aside(driver, ids[1])


@pytest.mark.parametrize(
    "damage", [not_a_hash, without("attempt"), without("priority")], ids=["type", "attempt", "order"]
)
async def test_a_damaged_run_does_not_keep_a_lost_reply_from_being_undone(driver: Driver, damage: Damage) -> None:
    ids = [await driver.create() for _ in range(3)]
    await driver.store.claim("w", 3, lease_ms=LEASE_MS, seq=ClaimSeq("p", 1))
    await damage(driver.redis, ids[1])

    reply = await driver.store.claim("w", 3, lease_ms=LEASE_MS, seq=ClaimSeq("p", 2, last_acked=0))

    assert {claim.run.id for claim in reply.claims} == {ids[0], ids[2]}
    if damage is not not_a_hash:  # without its record nobody knows whose claim the lease belongs to
        await is_set_aside(driver, ids[1])


@pytest.mark.parametrize("damage", [not_a_hash, without("priority")], ids=["type", "priority"])
async def test_a_damaged_delayed_run_does_not_stop_the_others(driver: Driver, damage: Damage) -> None:
    spec = RunSpec(prompt="x", delay_s=0.05)
    ids = [await driver.create(spec=spec) for _ in range(3)]
    await damage(driver.redis, ids[1])
    for run_id in ids:
        await driver.redis.command("ZADD", "jobs:delayed", 1, run_id)

    reply = await driver.store.claim("w", 3, lease_ms=LEASE_MS)

    assert {claim.run.id for claim in reply.claims} == {ids[0], ids[2]}
    await is_set_aside(driver, ids[1])


@pytest.mark.parametrize("damage", [without("status"), with_value("status", "paused")], ids=["none", "unknown"])
async def test_a_waiting_run_without_a_valid_status_is_set_aside(driver: Driver, damage: Damage) -> None:
    """Else it would be in no list, and its record would stay for ever."""
    run_id, _ = await driver.in_status(Status.WAITING)
    await expire_request(driver.redis, run_id, "q")
    await damage(driver.redis, run_id)

    assert list((await driver.store.claim("w", 1, lease_ms=LEASE_MS)).set_aside) == [run_id]
    await is_set_aside(driver, run_id)


async def test_the_list_of_unreadable_runs_is_bounded(driver: Driver) -> None:
    await driver.redis.command(
        "EVAL", "for n = 1, 10000 do redis.call('ZADD', KEYS[1], ARGV[1], 'run_' .. n) end", 1, "jobs:unreadable", 2**52
    )
    broken = await driver.create()
    await not_a_hash(driver.redis, broken)

    await driver.store.claim("w", 1, lease_ms=LEASE_MS)

    assert await driver.redis.command("ZCARD", "jobs:unreadable") == 10_000


async def test_a_key_that_is_no_record_costs_no_other_run_its_lease(driver: Driver) -> None:
    ids = [await driver.create() for _ in range(3)]
    claimed = await driver.store.claim("w", 3, lease_ms=LEASE_MS)
    leases = [Lease(claim.run.id, claim.run.fence) for claim in claimed.claims]
    await not_a_hash(driver.redis, ids[1])

    replies = await driver.store.renew(leases, lease_ms=2 * LEASE_MS)

    assert [reply.outcome for reply in replies] == [Outcome.OK, Outcome.GONE, Outcome.OK]
    await driver.redis.command("DEL", f"run:{ids[1]}", f"run:{ids[1]}:log")


async def test_an_infinite_time_wakes_no_worker_again_and_again(driver: Driver) -> None:
    run_id, _ = await driver.in_status(Status.RUNNING)
    await driver.redis.command("ZADD", "jobs:leases", "inf", run_id)

    reply = await driver.store.claim("w", 1, lease_ms=LEASE_MS)

    assert reply.next_ms is not None
    assert reply.next_ms > LEASE_MS


@pytest.mark.parametrize("priority", ["nan", "inf", "high"])
async def test_a_run_that_cannot_be_queued_is_left_as_it_is(driver: Driver, priority: str) -> None:
    """Else it would count as queued, in no part of the queue."""
    store, (failed, _) = driver.store, await driver.in_status(Status.FAILED)
    (waiting, _), (running, lease) = await driver.in_status(Status.WAITING), await driver.in_status(Status.RUNNING)
    for run_id in (failed, waiting, running):
        await with_value("priority", priority)(driver.redis, run_id)
    before = await driver.dump()

    calls = [
        store.retry(failed, token="t"),
        store.resume(waiting, answers("q"), by=USER, token="t"),
        store.release(lease, Writes(), delay_ms=0, burn=False),
    ]
    for call in calls:
        with pytest.raises((RecordUnreadable, StoreRejected)):
            await call

    assert await driver.dump() == before


async def test_a_run_that_was_not_queued_was_not_created_either(driver: Driver) -> None:
    """Else a repeated request would find it, and nobody would execute it."""
    await driver.redis.command("SET", "jobs:ready", "garbage", "EX", 60)
    with pytest.raises(StoreRejected):
        await driver.store.create("run_again", USER, SPEC, start=True, digest="d")

    assert await driver.redis.command("EXISTS", "run:run_again") == 0
    await driver.redis.command("DEL", "jobs:ready")
    assert (await driver.store.create("run_again", USER, SPEC, start=True, digest="d"))[0] is Outcome.OK


async def test_tokens_that_are_damaged_are_issued_again(driver: Driver) -> None:
    ids = [await driver.create() for _ in range(3)]
    await driver.redis.command("DEL", "jobs:pending")
    await driver.redis.command("SET", "jobs:pending", "garbage")

    reply = await driver.store.claim("w", 1, lease_ms=LEASE_MS)

    assert [claim.run.id for claim in reply.claims] == ids[:1]
    assert strings(await driver.redis.command("LRANGE", "jobs:pending", 0, -1)) == ids[1:]


async def test_commands_do_what_they_say_while_an_index_is_damaged(driver: Driver) -> None:
    store = driver.store
    failed, (resumed, _), (cancelled, _) = (
        [(await driver.in_status(Status.FAILED))[0] for _ in range(2)],
        await driver.in_status(Status.WAITING),
        await driver.in_status(Status.WAITING),
    )
    for key in ("jobs:dead", "jobs:waiting"):
        await driver.redis.command("SET", key, "garbage", "EX", 60)

    assert (await store.retry(failed[0], token="t"))[0] is Outcome.OK
    assert (await delete(store, failed[1]))[0] is Outcome.OK
    assert (await store.resume(resumed, answers("q"), by=USER, token="t"))[0] is Outcome.OK
    assert (await store.cancel(cancelled))[0] is Outcome.OK


async def test_tokens_that_are_damaged_keep_no_run_from_being_queued(driver: Driver) -> None:
    """A claim repairs the tokens, but idle workers make none for minutes."""
    await driver.redis.command("SET", "jobs:pending", "garbage")

    run_id = await driver.create()

    assert strings(await driver.redis.command("LRANGE", "jobs:pending", 0, -1)) == [run_id]


@pytest.mark.parametrize("key", ["jobs:waiting", "jobs:unreadable", "jobs:dead"])
async def test_a_damaged_index_takes_no_run_along(driver: Driver, key: str) -> None:
    first, broken, last = [await driver.create() for _ in range(3)]
    await driver.redis.command("SET", key, "garbage", "EX", 60)
    await without("seq")(driver.redis, broken)

    reply = await driver.store.claim("w", 3, lease_ms=LEASE_MS)

    assert [claim.run.id for claim in reply.claims] == [first, last]
    lease = Lease(first, reply.claims[0].run.fence)
    assert await driver.store.finish(lease, Status.FAILED, Writes(events=[END])) is Outcome.OK
    assert (await driver.store.head(first)).status is Status.FAILED
