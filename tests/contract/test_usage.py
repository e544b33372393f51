"""Usage of models: counted once, in the run and in the day of its user."""

import time
from datetime import timedelta

import pytest

from infra.contract.agent import Limits
from infra.contract.keys import USAGE_DAYS
from infra.contract.llm import Usage
from infra.contract.queue import Lease, Writes
from infra.contract.redis import Redis
from infra.contract.redis_store import codec, scripts, usage_sums
from infra.contract.runs import RunError
from infra.contract.states import Outcome, Status
from infra.contract.usage import DAY_S, EPOCH, MAX_ADDED, RunUsage
from tests.contract.driver import END, USER, Driver, delete, strings
from tests.support.requests import question
from tests.support.run_store import RunStore

USED = RunUsage(exchanges=1, input=100, output=20, cached=30, reasoning=5, costs={"CHF": 123})
FREE = RunUsage.of(Usage(input=7, output=1, cost_micros=0), "CHF")
WITHOUT_PRICE = RunUsage.of(Usage(input=10, output=2, estimated=True, cost_micros=None), None)


async def claimed(driver: Driver) -> Lease:
    await driver.create()
    claim, lease = await driver.claim()
    return Lease(claim.run.id, lease.fence, claim.run.user)


async def of_user(store: RunStore) -> RunUsage:
    """Return the usage of the last two days: midnight may pass during a test."""
    return sum(filter(None, (await store.usage(USER, 2)).values()), RunUsage())


async def test_every_write_with_usage_adds_it_to_the_run_and_to_the_day_of_its_user(driver: Driver) -> None:
    store = driver.store
    lease = await claimed(driver)
    await store.emit(lease, Writes(usage=USED))
    lease.batch += 1
    await store.emit(lease, Writes(usage=WITHOUT_PRICE))
    lease.batch += 1
    await store.emit(lease, Writes(journal={"a": "1"}))
    lease.batch += 1
    await store.wait(lease, Writes(usage=USED), [question()])
    expected = RunUsage(
        exchanges=3, input=210, output=42, cached=60, reasoning=10, estimated=1, unpriced=1, costs={"CHF": 246}
    )
    assert (await store.head(lease.run_id)).usage == expected
    assert await of_user(store) == expected


async def test_usage_is_kept_for_400_days_without_its_run(driver: Driver, redis: Redis) -> None:
    store = driver.store
    lease = await claimed(driver)
    await store.finish(lease, Status.SUCCEEDED, Writes(events=[END], usage=USED))
    assert (await delete(store, lease.run_id))[0] is Outcome.OK
    assert await of_user(store) == USED
    (key,) = strings(await redis.command("KEYS", "usage:*"))
    assert USAGE_DAYS * DAY_S - 60 < int(str(await redis.command("TTL", key))) <= USAGE_DAYS * DAY_S
    assert await store.usage("bob", 2) == {}


async def test_a_repeated_or_stale_write_adds_nothing(driver: Driver) -> None:
    store = driver.store
    lease = await claimed(driver)
    writes = Writes(events=[END], usage=USED)
    assert (await store.emit(Lease(lease.run_id, lease.fence - 1, USER), writes)).outcome is Outcome.LOST
    for _ in range(2):
        await store.release(lease, writes, delay_ms=0, burn=True)
    assert (await store.head(lease.run_id)).usage == await of_user(store) == USED


async def test_usage_of_a_refused_finish_counts_with_the_write_that_follows(driver: Driver) -> None:
    store = driver.store
    lease = await claimed(driver)
    await store.message(lease.run_id, "hello", by=USER, token="t")
    writes = Writes(events=[END], usage=USED)
    assert await store.finish(lease, Status.SUCCEEDED, writes) is Outcome.REFUSED
    assert await of_user(store) == RunUsage()
    assert await store.release_for_message(lease, writes) is Outcome.OK
    assert (await store.head(lease.run_id)).usage == await of_user(store) == USED


async def test_a_damaged_sum_of_a_day_does_not_stop_a_run(driver: Driver, redis: Redis) -> None:
    lease = await claimed(driver)
    today = EPOCH + timedelta(days=int(time.time()) // DAY_S)
    for day in (today, today + timedelta(days=1)):
        await redis.command("SET", driver.store.keys.usage(USER, day), "x", "EX", 60)
    assert (await driver.store.emit(lease, Writes(usage=USED))).outcome is Outcome.OK
    assert (await driver.store.head(lease.run_id)).usage == USED


@pytest.mark.parametrize("wrong_by", [-10, -1, 0, 1, 10])
async def test_redis_clock_picks_the_day_among_those_around_the_clock_of_the_worker(
    driver: Driver, redis: Redis, wrong_by: int
) -> None:
    """Only a clock that is wrong by more than a day counts usage on the nearest of its days."""
    lease, keys = await claimed(driver), driver.store.keys
    today = int(time.time()) // DAY_S
    days = [today + wrong_by + index for index in (-1, 0, 1)]
    reply = await redis.script(
        scripts.load("emit"),
        [keys.run(lease.run_id), keys.log(lease.run_id), *(keys.usage(USER, EPOCH + timedelta(days=d)) for d in days)],
        [lease.fence, "", 1, 0, "[]", keys.channel(lease.run_id), usage_sums.encode(USED, days[0])],
    )
    assert codec.outcome(reply) is Outcome.OK
    nearest = {min(max(day, days[0]), days[-1]) for day in (today, int(time.time()) // DAY_S)}
    found = strings(await redis.command("KEYS", "usage:*"))
    assert found[0] in {keys.usage(USER, EPOCH + timedelta(days=day)) for day in nearest}
    assert len(found) == 1


async def test_large_numbers_are_added_exactly_and_a_free_model_has_a_cost_of_zero(driver: Driver) -> None:
    store = driver.store
    lease = await claimed(driver)
    for used in (RunUsage(input=MAX_ADDED - 1), RunUsage(input=MAX_ADDED - 2), RunUsage(input=10 * MAX_ADDED), FREE):
        await store.emit(lease, Writes(usage=used))
        lease.batch += 1
    expected = RunUsage(exchanges=1, input=3 * MAX_ADDED + 4, output=1, costs={"CHF": 0})
    assert (await store.head(lease.run_id)).usage == await of_user(store) == expected


async def test_a_write_with_usage_needs_the_user_of_the_run(driver: Driver) -> None:
    lease = await claimed(driver)
    with pytest.raises(ValueError, match="needs the user"):
        await driver.store.emit(Lease(lease.run_id, lease.fence), Writes(usage=USED))


@pytest.mark.parametrize(
    ("usage", "currency", "expected"),
    [
        (Usage(input=1, cost_micros=5), "CHF", RunUsage(exchanges=1, input=1, costs={"CHF": 5})),
        (Usage(input=1, cost_micros=5), None, RunUsage(exchanges=1, input=1, unpriced=1)),
        (Usage(input=1, cost_micros=None), "CHF", RunUsage(exchanges=1, input=1, unpriced=1)),
        (Usage(), None, RunUsage(exchanges=1)),
    ],
)
def test_a_cost_without_a_price_or_a_currency_is_unknown(
    usage: Usage, currency: str | None, expected: RunUsage
) -> None:
    assert RunUsage.of(usage, currency) == expected


async def test_limits_of_a_retry_stay_until_another_retry_gives_others(driver: Driver) -> None:
    store = driver.store
    lease = await claimed(driver)
    for token, limits, expected in (
        ("a", None, None),
        ("b", Limits(turns=40), Limits(turns=40)),
        ("c", None, Limits(turns=40)),
        ("d", Limits(cost=2.5), Limits(cost=2.5)),
    ):
        await store.finish(lease, Status.FAILED, Writes(events=[END]))
        for _ in range(2):
            await store.retry(lease.run_id, token=token, limits=limits)
        assert (await store.get(lease.run_id)).limits == expected
        claim, lease = await driver.claim()
        assert claim.run.limits == expected


async def test_a_failed_run_keeps_a_partial_result_beside_its_error(driver: Driver) -> None:
    lease = await claimed(driver)
    error = RunError(code="limit_turns", message="20 of 20 turns are used")
    await driver.store.finish(lease, Status.FAILED, Writes(events=[END]), result={"summary": "half"}, error=error)
    record = await driver.store.get(lease.run_id)
    assert (record.result, record.error) == ({"summary": "half"}, error)
