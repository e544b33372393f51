"""Damaged records: one of them never takes the runs beside it along, whichever part of a claim meets it."""

from collections.abc import Awaitable, Callable

import pytest

from infra.contract.errors import RecordUnreadable
from infra.contract.queue import ClaimSeq
from infra.contract.redis import Redis
from infra.contract.runs import RunSpec
from infra.contract.states import Status
from tests.contract.driver import LEASE_MS, USER, Driver, strings

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


async def test_a_damaged_delayed_run_does_not_stop_the_others(driver: Driver) -> None:
    spec = RunSpec(prompt="x", delay_s=0.05)
    ids = [await driver.create(spec=spec) for _ in range(3)]
    await not_a_hash(driver.redis, ids[1])
    for run_id in ids:
        await driver.redis.command("ZADD", "jobs:delayed", 1, run_id)

    reply = await driver.store.claim("w", 3, lease_ms=LEASE_MS)

    assert {claim.run.id for claim in reply.claims} == {ids[0], ids[2]}
    await is_set_aside(driver, ids[1])


async def test_the_list_of_unreadable_runs_is_bounded(driver: Driver) -> None:
    await driver.redis.command(
        "EVAL", "for n = 1, 10000 do redis.call('ZADD', KEYS[1], ARGV[1], 'run_' .. n) end", 1, "jobs:unreadable", 2**52
    )
    broken = await driver.create()
    await not_a_hash(driver.redis, broken)

    await driver.store.claim("w", 1, lease_ms=LEASE_MS)

    assert await driver.redis.command("ZCARD", "jobs:unreadable") == 10_000


@pytest.mark.parametrize(
    "damage",
    [without("status"), with_value("status", "paused"), without("brief"), with_value("brief", "{nope"), not_a_hash],
    ids=["no status", "status of a newer release", "no brief", "brief is no JSON", "not a hash"],
)
async def test_a_damaged_record_is_named_in_the_list_and_hides_no_other_run(driver: Driver, damage: Damage) -> None:
    first, broken, last = [await driver.create() for _ in range(3)]
    await damage(driver.redis, broken)

    page = await driver.store.page(USER, limit=10)

    assert {run.id for run in page.runs} == {first, last}
    assert page.unreadable == [broken]
    for read in (driver.store.get, driver.store.head, driver.store.log):
        with pytest.raises(RecordUnreadable, match=broken):
            await read(broken)
    assert (await driver.store.head(first)).status is Status.QUEUED
    await driver.redis.command("DEL", f"run:{broken}")  # no claim has set it aside, so it would stay for ever
