"""Start time of runs: `delay_s`, `start_at_ms`, `queue_ttl_s`, and records of a newer release."""

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


async def granted_ids(runs: RunStore) -> list[str]:
    return [claim.run.id for claim in (await runs.claim("w", 5, lease_ms=LEASE_MS)).claims]


@pytest.mark.parametrize("started_later", [False, True])
async def test_a_delayed_run_is_not_granted_before_it_is_due(driver: Driver, started_later: bool) -> None:
    run_id = await driver.create(spec=spec(delay_s=60), start=not started_later)
    if started_later:
        await driver.store.start(run_id)
    claimed = await driver.store.claim("w", 5, lease_ms=LEASE_MS)

    assert claimed.claims == []
    assert claimed.next_ms is not None
    assert 30_000 < claimed.next_ms <= 60_000

    depths = await driver.store.depths()
    assert (depths.delayed, depths.ready, depths.pending) == (1, 0, 0)
    assert (await driver.store.head(run_id)).status is Status.QUEUED

    await driver.make_due(run_id)
    assert await granted_ids(driver.store) == [run_id]


async def test_a_run_is_granted_from_its_start_time_on(driver: Driver) -> None:
    now_ms = int(time.time() * 1000)
    past = await driver.create(spec=spec(start_at_ms=now_ms - 5000))
    future = await driver.create(spec=spec(start_at_ms=now_ms + 3_600_000))
    assert await granted_ids(driver.store) == [past]
    await driver.store.cancel(future)
    assert (await driver.store.depths()).delayed == 0


def test_a_spec_with_both_a_delay_and_a_start_time_is_rejected() -> None:
    with pytest.raises(InvalidInput, match="give 'delay_s' or 'start_at_ms', not both"):
        spec(delay_s=1.0, start_at_ms=5).check()


async def test_a_run_that_exceeds_its_queue_ttl_fails(driver: Driver, redis: Redis) -> None:
    stale = await driver.create(spec=spec(queue_ttl_s=60))
    fresh = await driver.create(spec=spec(queue_ttl_s=60))
    delayed = await driver.create(spec=spec(queue_ttl_s=60, delay_s=0.001))
    resumed = await driver.create(spec=spec(queue_ttl_s=60))
    for run_id in (stale, resumed):
        await redis.command("HINCRBY", f"run:{run_id}", "queued_ms", -61_000)
    await redis.command("HSET", f"run:{resumed}", "fence", 1)
    granted: set[str] = set()

    async def all_granted() -> bool:
        granted.update(await granted_ids(driver.store))
        return granted == {fresh, delayed, resumed}

    await until(all_granted, "all runs but the expired one are granted")

    head = await driver.store.head(stale)

    assert head.status is Status.FAILED
    assert head.error
    assert head.error.code == "expired"

    events = await events_in_redis(driver.store, stale)
    assert [event.type for event in events] == ["run.finished"]
    assert (await driver.store.depths()).dead == 1


async def test_the_queue_ttl_counts_from_the_creation_or_retry_if_the_start_time_is_earlier(
    driver: Driver, redis: Redis
) -> None:
    past = int(time.time() * 1000) - 3_600_000
    due_before_creation = await driver.create(spec=spec(start_at_ms=past, queue_ttl_s=60))
    assert await granted_ids(driver.store) == [due_before_creation]

    retried = await driver.create(spec=spec(start_at_ms=past, queue_ttl_s=60))
    await redis.command("HINCRBY", f"run:{retried}", "queued_ms", -61_000)
    assert await granted_ids(driver.store) == []
    assert (await driver.store.head(retried)).status is Status.FAILED

    await driver.store.retry(retried, token="t")
    assert await granted_ids(driver.store) == [retried]


def upgrade_to_the_next_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the store support records of the next version, like a worker of the next release."""
    monkeypatch.setattr(work_queue, "RECORD_VERSION", RECORD_VERSION + 1)


async def test_a_run_with_a_newer_record_is_granted_to_a_newer_worker_only(
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

    upgrade_to_the_next_release(monkeypatch)

    async def newer_is_granted() -> bool:
        return await granted_ids(driver.store) == [newer]

    await until(newer_is_granted, "a worker of the newer release is granted the run")


async def test_an_expired_run_with_a_newer_record_is_recovered_by_a_newer_worker_only(
    driver: Driver, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await driver.create(spec=RunSpec(prompt="x", max_attempts=2))
    await driver.claim(lease_ms=1)
    await redis.command("HSET", f"run:{run_id}", "v", RECORD_VERSION + 1)
    await driver.let_lease_expire(1)
    before = await driver.store.get(run_id)
    for _ in range(2):
        claimed = await driver.store.claim("w", 5, lease_ms=LEASE_MS)
        assert claimed.claims == []
        assert claimed.next_ms is not None
        assert 0 < claimed.next_ms <= 1000
        assert await driver.store.get(run_id) == before
    upgrade_to_the_next_release(monkeypatch)

    async def run_is_granted() -> bool:
        return await granted_ids(driver.store) == [run_id]

    await until(run_is_granted, "a worker of the newer release is granted the run")

    assert (await driver.store.get(run_id)).attempt == 2
