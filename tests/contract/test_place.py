"""Place of a queued run: how many runs are before it, when it begins, how many workers are alive."""

import pytest

from infra.contract.queue import ALIVE_MS, ClaimSeq
from infra.contract.redis import Redis
from infra.contract.runs import RunSpec
from infra.contract.states import Status
from tests.contract.driver import LEASE_MS, SPEC, WORKERS, Driver, strings
from worker.queue.loop import MAX_BLOCK_S, NOTE_S, SIGN_OFF_S

NEVER = 10**15


async def alive(driver: Driver) -> int:
    place = await driver.store.place(await driver.create())
    assert place
    return place.workers_alive


async def test_a_ready_run_has_the_number_of_runs_before_it(driver: Driver) -> None:
    first, second = await driver.create(), await driver.create()
    urgent = await driver.create(spec=RunSpec(prompt="x", priority=8))
    places = [await driver.store.place(run_id) for run_id in (urgent, first, second)]
    assert [(place.ahead, place.ahead_capped, place.begins_ms) for place in places if place] == [
        (0, False, None),
        (1, False, None),
        (2, False, None),
    ]


async def test_the_number_of_runs_before_a_run_is_capped(driver: Driver, redis: Redis) -> None:
    run_id = await driver.create()
    fill = "for n = 1, tonumber(ARGV[1]) do redis.call('ZADD', KEYS[1], n, 'run_' .. n) end"
    for others, ahead in ((1000, (1000, False)), (1001, (1000, True))):
        await redis.command("EVAL", fill, 1, "jobs:ready", others)
        place = await driver.store.place(run_id)
        assert place
        assert (place.ahead, place.ahead_capped) == ahead


async def test_a_delayed_run_has_the_time_of_its_earliest_begin(driver: Driver) -> None:
    await driver.create()
    at = await driver.create(spec=RunSpec(prompt="x", start_at_ms=NEVER))
    later = await driver.create(spec=RunSpec(prompt="x", delay_s=60))
    place, queued_ms = await driver.store.place(later), (await driver.store.head(later)).queued_ms
    assert place
    assert queued_ms is not None
    assert (place.ahead, place.begins_ms) == (0, queued_ms + 60_000)
    place = await driver.store.place(at)
    assert place
    assert place.begins_ms == NEVER


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.QUEUED}))
async def test_a_run_that_is_not_queued_has_no_place(driver: Driver, status: Status) -> None:
    run_id, _ = await driver.in_status(status)
    assert await driver.store.place(run_id) is None
    assert await driver.store.place("run_none") is None


async def test_a_worker_process_is_alive_from_its_claim_until_it_signs_off_or_is_silent_for_long(
    driver: Driver, redis: Redis
) -> None:
    assert await alive(driver) == 0
    for process in ("one", "two", "two"):
        await driver.store.claim("w", 0, lease_ms=LEASE_MS, seq=ClaimSeq(process), alive=True)
    assert await alive(driver) == 2
    await driver.store.sign_off("one")
    await driver.store.sign_off("one")
    assert await alive(driver) == 1
    (now_s, _) = strings(await redis.command("TIME"))
    until_ms = float(str(await redis.command("ZSCORE", WORKERS, "two")))
    assert ALIVE_MS - 30_000 < until_ms - int(now_s) * 1000 <= ALIVE_MS + 1000
    await redis.command("ZADD", WORKERS, int(now_s) * 1000 - 1, "two")
    assert await alive(driver) == 0


async def test_a_dead_process_is_no_longer_alive_once_its_successor_claims(driver: Driver) -> None:
    await driver.store.claim("w", 0, lease_ms=LEASE_MS, seq=ClaimSeq("before"), alive=True)
    await driver.store.claim("w", 0, lease_ms=LEASE_MS, seq=ClaimSeq("after", dead=("before", "long ago")), alive=True)
    assert await alive(driver) == 1


async def test_the_set_of_workers_is_bounded_and_forgets_those_that_are_silent(driver: Driver, redis: Redis) -> None:
    fill = "for n = 1, 10500 do redis.call('ZADD', KEYS[1], ARGV[1] + n, 'p' .. n) end"
    await redis.command("EVAL", fill, 1, WORKERS, 1)
    await driver.store.claim("w", 0, lease_ms=LEASE_MS, seq=ClaimSeq("new"), alive=True)
    assert strings(await redis.command("ZRANGE", WORKERS, 0, -1)) == ["new"]
    await redis.command("EVAL", fill, 1, WORKERS, NEVER)
    await driver.store.claim("w", 0, lease_ms=LEASE_MS, seq=ClaimSeq("newer"), alive=True)
    assert await redis.command("ZCARD", WORKERS) == 10_000


async def test_a_damaged_set_of_workers_stops_neither_claims_nor_reads(driver: Driver, redis: Redis) -> None:
    await redis.command("SET", WORKERS, "no set", "EX", 60)
    run_id = await driver.create(spec=SPEC)
    assert await alive(driver) == 0
    await driver.store.claim("w", 1, lease_ms=LEASE_MS, seq=ClaimSeq("p", dead=("q",)), alive=True)
    assert (await driver.store.head(run_id)).status is Status.RUNNING


def test_the_longest_wait_of_a_worker_between_two_claims_is_shorter_than_it_counts_as_alive() -> None:
    assert MAX_BLOCK_S + NOTE_S + SIGN_OFF_S < ALIVE_MS / 1000
