"""What has gone into the archive leaves Redis, and the record says so; only the run's last owner may say it."""

from infra.contract.log import Segment
from infra.contract.queue import Lease, Writes
from infra.contract.states import Outcome, Status
from tests.contract.driver import END, USER, Driver, delete, event, strings
from tests.support.logs import events_in_redis

LEASE_MS = 40


async def logged(driver: Driver, run_id: str) -> list[int]:
    return [each.seq for each in await events_in_redis(driver.store, run_id)]


async def emit(driver: Driver, lease: Lease, *numbers: int) -> None:
    await driver.store.emit(lease, Writes(events=[event(number) for number in numbers]))
    lease.batch += 1


async def test_the_archived_events_but_the_last_leave_redis_and_the_next_owner_knows(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim(lease_ms=LEASE_MS)
    await emit(driver, lease, 2, 3)
    await emit(driver, lease, 4, 5)
    assert await driver.store.trim(claim.run, [Segment(1, 3, 1)]) is Outcome.OK
    assert await driver.store.trim(claim.run, [Segment(1, 3, 1)]) is Outcome.OK
    assert await logged(driver, run_id) == [2, 3, 4, 5]
    log = await driver.store.log(run_id)
    assert (log.archived, log.seq, log.status) == (3, 5, Status.RUNNING)
    await driver.lapse(LEASE_MS)
    again, second = await driver.claim()
    assert list(again.segments) == [Segment(1, 3, 1)]
    assert await driver.store.trim(claim.run, [Segment(1, 5, 1)]) is Outcome.LOST
    assert await driver.store.trim(again.run, [*again.segments, Segment(4, 6, 2)]) is Outcome.OK
    await emit(driver, second, 8)
    assert await logged(driver, run_id) == [6, 7, 8]


async def test_one_that_is_executed_again_after_a_later_one_takes_nothing_back(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim()
    await emit(driver, lease, 2, 3)
    await emit(driver, lease, 4, 5)
    first, second = Segment(1, 3, 1), Segment(4, 5, 1)
    for segments in ([first], [first, second], [first]):
        assert await driver.store.trim(claim.run, segments) is Outcome.OK
    assert list((await driver.store.log(run_id)).segments) == [first, second]


async def test_an_entry_leaves_as_a_whole_or_not_at_all(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim()
    await emit(driver, lease, 2, 3, 4)
    await driver.store.trim(claim.run, [Segment(1, 3, 1)])
    assert await logged(driver, run_id) == [2, 3, 4]


async def test_a_log_that_has_ended_is_archived_and_still_expires_and_goes_on_after_a_retry(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim()
    await driver.store.finish(lease, Status.FAILED, Writes(events=[END]))
    assert await driver.store.trim(claim.run, [Segment(1, 2, 1)]) is Outcome.OK
    assert await logged(driver, run_id) == [2]
    assert int(str(await driver.redis.command("TTL", f"run:{run_id}"))) > 0
    assert (await driver.store.retry(run_id, token="t"))[0] is Outcome.OK
    assert await logged(driver, run_id) == [2, 3]
    again, _ = await driver.claim()
    assert list(again.segments) == [Segment(1, 2, 1)]


async def test_a_deleted_run_and_a_new_one_of_the_same_id_are_left_alone(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim()
    await driver.store.finish(lease, Status.SUCCEEDED, Writes(events=[END]))
    await delete(driver.store, run_id)
    before = await driver.dump()
    assert await driver.store.trim(claim.run, [Segment(1, 2, 1)]) is Outcome.GONE
    assert await driver.dump() == before
    await driver.lapse(1)
    await driver.store.create(run_id, USER, claim.run.spec, start=True, digest="d")
    await driver.claim()
    assert await driver.store.trim(claim.run, [Segment(1, 2, 1)]) is Outcome.GONE
    assert await logged(driver, run_id) == [1]


async def test_a_run_that_is_being_deleted_gets_no_more_segments(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim()
    await driver.store.finish(lease, Status.SUCCEEDED, Writes(events=[END]))
    await driver.store.mark_deleting(run_id)
    before = await driver.dump()
    assert await driver.store.trim(claim.run, [Segment(1, 2, 1)]) is Outcome.GONE
    assert await driver.dump() == before


async def test_the_keys_are_those_that_were_there(driver: Driver) -> None:
    await driver.create()
    claim, _ = await driver.claim()
    keys = sorted(strings(await driver.redis.command("KEYS", "*")))
    await driver.store.trim(claim.run, [Segment(1, 1, 1)])
    assert sorted(strings(await driver.redis.command("KEYS", "*"))) == keys
