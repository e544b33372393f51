"""When a run begins: delays, moments, the time it may wait, and runs of a newer release."""

import time

import pytest

from infra.contract.errors import InvalidInput
from infra.contract.redis import Redis
from infra.contract.redis_store import work_queue
from infra.contract.runs import RECORD_VERSION, RunSpec
from infra.contract.states import Status
from tests.contract.driver import LEASE_MS, Driver
from tests.support.logs import events_in_redis
from tests.support.run_store import RunStore
from tests.support.waiting import until


def spec(delay_s: float = 0.0, start_at_ms: int | None = None, queue_ttl_s: float | None = None) -> RunSpec:
    return RunSpec(prompt="x", delay_s=delay_s, start_at_ms=start_at_ms, queue_ttl_s=queue_ttl_s)


async def granted(runs: RunStore) -> list[str]:
    return [claim.run.id for claim in (await runs.claim("w", 5, lease_ms=LEASE_MS)).claims]


@pytest.mark.parametrize("later", [False, True])
async def test_a_delayed_run_is_not_begun_before_its_time(driver: Driver, later: bool) -> None:
    run_id = await driver.create(spec=spec(delay_s=60), start=not later)
    if later:
        await driver.store.start(run_id)
    claimed = await driver.store.claim("w", 5, lease_ms=LEASE_MS)
    assert claimed.claims == []
    assert claimed.next_ms is not None
    assert 30_000 < claimed.next_ms <= 60_000
    depths = await driver.store.depths()
    assert (depths.delayed, depths.ready, depths.pending) == (1, 0, 0)
    assert (await driver.store.head(run_id)).status is Status.QUEUED
    await driver.make_due(run_id)
    assert await granted(driver.store) == [run_id]


async def test_a_run_begins_at_its_moment(driver: Driver) -> None:
    now_ms = int(time.time() * 1000)
    past = await driver.create(spec=spec(start_at_ms=now_ms - 5000))
    future = await driver.create(spec=spec(start_at_ms=now_ms + 3_600_000))
    assert await granted(driver.store) == [past]
    await driver.store.cancel(future)
    assert (await driver.store.depths()).delayed == 0


def test_a_delay_and_a_moment_contradict_each_other() -> None:
    with pytest.raises(InvalidInput, match="give 'delay_s' or 'start_at_ms', not both"):
        spec(delay_s=1.0, start_at_ms=5).check()


async def test_a_run_that_waited_too_long_is_not_begun(driver: Driver, redis: Redis) -> None:
    stale = await driver.create(spec=spec(queue_ttl_s=60))
    fresh = await driver.create(spec=spec(queue_ttl_s=60))
    delayed = await driver.create(spec=spec(queue_ttl_s=60, delay_s=0.001))
    resumed = await driver.create(spec=spec(queue_ttl_s=60))
    for run_id in (stale, resumed):
        await redis.command("HINCRBY", f"run:{run_id}", "queued_ms", -61_000)
    await redis.command("HSET", f"run:{resumed}", "fence", 1)
    seen: set[str] = set()

    async def all_begun() -> bool:
        seen.update(await granted(driver.store))
        return seen == {fresh, delayed, resumed}

    await until(all_begun, "all but the stale one are begun")
    head = await driver.store.head(stale)
    assert head.status is Status.FAILED
    assert head.error
    assert head.error.code == "expired"
    events = await events_in_redis(driver.store, stale)
    assert [event.type for event in events] == ["run.finished"]
    assert (await driver.store.depths()).dead == 1


async def test_the_time_in_the_queue_is_counted_from_when_a_run_is_ready(driver: Driver, redis: Redis) -> None:
    """Not from a moment that lies before it, and anew when it is retried."""
    past = int(time.time() * 1000) - 3_600_000
    behind = await driver.create(spec=spec(start_at_ms=past, queue_ttl_s=60))
    assert await granted(driver.store) == [behind]
    again = await driver.create(spec=spec(start_at_ms=past, queue_ttl_s=60))
    await redis.command("HINCRBY", f"run:{again}", "queued_ms", -61_000)
    assert await granted(driver.store) == []
    assert (await driver.store.head(again)).status is Status.FAILED
    await driver.store.retry(again, token="t")
    assert await granted(driver.store) == [again]


def of_the_next_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the store is one that knows records of the next version."""
    monkeypatch.setattr(work_queue, "RECORD_VERSION", RECORD_VERSION + 1)


async def test_a_run_of_a_newer_release_is_left_for_a_newer_worker(
    driver: Driver, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer, known = await driver.create(), await driver.create()
    await redis.command("HSET", f"run:{newer}", "v", RECORD_VERSION + 1)
    claimed = await driver.store.claim("w", 5, lease_ms=LEASE_MS)
    assert [claim.run.id for claim in claimed.claims] == [known]
    assert claimed.next_ms is not None
    assert claimed.next_ms <= 1000
    depths = await driver.store.depths()
    assert (depths.delayed, depths.ready, depths.pending) == (1, 0, 0)
    of_the_next_release(monkeypatch)

    async def begun() -> bool:
        return await granted(driver.store) == [newer]

    await until(begun, "it is begun by a worker that knows its release")


async def test_a_lost_run_of_a_newer_release_is_left_for_a_newer_worker(
    driver: Driver, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await driver.create(spec=RunSpec(prompt="x", max_attempts=2))
    await driver.claim(lease_ms=1)
    await redis.command("HSET", f"run:{run_id}", "v", RECORD_VERSION + 1)
    await driver.lapse(1)
    before = await driver.store.get(run_id)
    for _ in range(2):
        claimed = await driver.store.claim("w", 5, lease_ms=LEASE_MS)
        assert claimed.claims == []
        assert claimed.next_ms is not None
        assert 0 < claimed.next_ms <= 1000
        assert await driver.store.get(run_id) == before
    of_the_next_release(monkeypatch)

    async def resumed() -> bool:
        return await granted(driver.store) == [run_id]

    await until(resumed, "it is taken over by a worker that knows its release")
    assert (await driver.store.get(run_id)).attempt == 2
