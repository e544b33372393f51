"""`trim`: archived events are deleted from Redis and named in the record, on behalf of the run's last owner only."""

from infra.contract.log import Segment
from infra.contract.queue import Lease, Writes
from infra.contract.states import Outcome, Status
from tests.contract.driver import END, USER, Driver, delete, event, strings
from tests.support.logs import events_in_redis

LEASE_MS = 40


async def stored_seqs(driver: Driver, run_id: str) -> list[int]:
    return [each.seq for each in await events_in_redis(driver.store, run_id)]


async def emit(driver: Driver, lease: Lease, *numbers: int) -> None:
    await driver.store.emit(lease, Writes(events=[event(number) for number in numbers]))
    lease.batch += 1


async def test_archived_events_are_deleted_and_the_next_owner_gets_the_segments(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim(lease_ms=LEASE_MS)
    await emit(driver, lease, 2, 3)
    await emit(driver, lease, 4, 5)

    assert await driver.store.trim(claim.run, [Segment(1, 3, 1)]) is Outcome.OK
    assert await driver.store.trim(claim.run, [Segment(1, 3, 1)]) is Outcome.OK
    assert await stored_seqs(driver, run_id) == [2, 3, 4, 5]

    log = await driver.store.log(run_id)
    assert (log.archived, log.seq, log.status) == (3, 5, Status.RUNNING)

    await driver.let_lease_expire(LEASE_MS)
    reclaimed, second = await driver.claim()
    assert list(reclaimed.segments) == [Segment(1, 3, 1)]
    assert await driver.store.trim(claim.run, [Segment(1, 5, 1)]) is Outcome.LOST
    assert await driver.store.trim(reclaimed.run, [*reclaimed.segments, Segment(4, 6, 2)]) is Outcome.OK

    await emit(driver, second, 8)
    assert await stored_seqs(driver, run_id) == [6, 7, 8]


async def test_a_trim_repeated_after_a_later_trim_changes_nothing(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim()
    await emit(driver, lease, 2, 3)
    await emit(driver, lease, 4, 5)
    first, second = Segment(1, 3, 1), Segment(4, 5, 1)
    for segments in ([first], [first, second], [first]):
        assert await driver.store.trim(claim.run, segments) is Outcome.OK
    assert list((await driver.store.log(run_id)).segments) == [first, second]


async def test_a_stream_entry_with_unarchived_events_is_not_deleted(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim()
    await emit(driver, lease, 2, 3, 4)
    await driver.store.trim(claim.run, [Segment(1, 3, 1)])
    assert await stored_seqs(driver, run_id) == [2, 3, 4]


async def test_the_log_of_a_finished_run_is_archived_expires_and_is_continued_by_a_retry(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim()
    await driver.store.finish(lease, Status.FAILED, Writes(events=[END]))

    assert await driver.store.trim(claim.run, [Segment(1, 2, 1)]) is Outcome.OK
    assert await stored_seqs(driver, run_id) == [2]
    assert int(str(await driver.redis.command("TTL", f"run:{run_id}"))) > 0
    assert (await driver.store.retry(run_id, token="t"))[0] is Outcome.OK
    assert await stored_seqs(driver, run_id) == [2, 3]

    reclaimed, _ = await driver.claim()
    assert list(reclaimed.segments) == [Segment(1, 2, 1)]


async def test_a_trim_changes_neither_a_deleted_run_nor_a_new_run_of_the_same_id(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim()
    await driver.store.finish(lease, Status.SUCCEEDED, Writes(events=[END]))
    await delete(driver.store, run_id)
    before = await driver.dump()

    assert await driver.store.trim(claim.run, [Segment(1, 2, 1)]) is Outcome.GONE
    assert await driver.dump() == before

    await driver.let_lease_expire(1)
    await driver.store.create(run_id, USER, claim.run.spec, start=True, digest="d")
    await driver.claim()

    assert await driver.store.trim(claim.run, [Segment(1, 2, 1)]) is Outcome.GONE
    assert await stored_seqs(driver, run_id) == [1]


async def test_a_run_being_deleted_gets_no_more_segments(driver: Driver) -> None:
    run_id = await driver.create()
    claim, lease = await driver.claim()
    await driver.store.finish(lease, Status.SUCCEEDED, Writes(events=[END]))
    await driver.store.mark_deleting(run_id)
    before = await driver.dump()
    assert await driver.store.trim(claim.run, [Segment(1, 2, 1)]) is Outcome.GONE
    assert await driver.dump() == before


async def test_a_trim_creates_no_key(driver: Driver) -> None:
    await driver.create()
    claim, _ = await driver.claim()
    keys = sorted(strings(await driver.redis.command("KEYS", "*")))
    await driver.store.trim(claim.run, [Segment(1, 1, 1)])
    assert sorted(strings(await driver.redis.command("KEYS", "*"))) == keys
