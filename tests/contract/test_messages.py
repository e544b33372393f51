"""Messages to runs and interrupts: each message is refused, or appears once in a claim or an inbox."""

import pytest

from infra.contract.errors import LimitExceeded
from infra.contract.queue import Lease, Writes
from infra.contract.redis import Redis
from infra.contract.requests import MAX_MESSAGE_CHARS, MAX_MESSAGES, MAX_UNREAD_MESSAGES
from infra.contract.states import Outcome, Status
from tests.contract.driver import END, LEASE_MS, Driver, event
from tests.support import events as support
from tests.support.logs import events_in_redis
from tests.support.requests import question


async def send(driver: Driver, run_id: str, text: str, token: str = "t") -> Outcome:
    return (await driver.store.message(run_id, text, by="ada", token=token))[0]


@pytest.mark.parametrize("status", list(Status))
async def test_a_message_is_taken_by_an_active_run_and_refused_by_others(driver: Driver, status: Status) -> None:
    run_id, _ = await driver.in_status(status)
    before = await driver.dump()
    active = status in {Status.QUEUED, Status.RUNNING, Status.WAITING}
    assert await send(driver, run_id, "hello") is (Outcome.OK if active else Outcome.REFUSED)
    if active:
        assert (await driver.store.head(run_id)).status is status
    else:
        assert await driver.dump() == before


async def test_a_claim_carries_the_unread_messages_in_order(driver: Driver) -> None:
    run_id = await driver.create()
    for number in range(12):
        assert await send(driver, run_id, f"m{number}", f"t{number}") is Outcome.OK
    assert await send(driver, run_id, "m0", "t0") is Outcome.SAME
    claim, lease = await driver.claim()
    assert [(each.number, each.text, each.by) for each in claim.messages] == [
        (number + 1, f"m{number}", "ada") for number in range(12)
    ]
    read = Writes(journal={"inbox:0": "1"}, read=[each.number for each in claim.messages])
    assert (await driver.store.emit(lease, read)).outcome is Outcome.OK
    lease.batch += 1
    await driver.store.release(lease, Writes(events=[event()]), delay_ms=0, burn=False)
    assert (await driver.claim())[0].messages == []


async def test_a_worker_learns_of_a_message_from_the_reply_to_an_emit(driver: Driver) -> None:
    run_id, lease = await driver.in_status(Status.RUNNING)
    assert (await driver.store.emit(lease, Writes(events=[event()]))).messages == 0
    lease.batch += 1
    await send(driver, run_id, "hello")
    assert (await driver.store.emit(lease, Writes(events=[event()]))).messages == 1
    (message,) = await driver.store.messages(run_id, after=0, last=1)
    assert (message.text, message.number) == ("hello", 1)
    logged = (await events_in_redis(driver.store, run_id))[-2]
    support.check(logged)
    assert (logged.type, logged.data) == ("message.received", {"text": "hello", "by": "ada"})


async def test_a_run_does_not_succeed_before_its_messages_are_read(driver: Driver) -> None:
    run_id, lease = await driver.in_status(Status.RUNNING)
    await send(driver, run_id, "wait")
    before = await driver.dump()
    assert await driver.store.finish(lease, Status.SUCCEEDED, Writes(events=[END])) is Outcome.REFUSED
    assert await driver.dump() == before
    assert await driver.store.finish(lease, Status.SUCCEEDED, Writes(events=[END]), read=1) is Outcome.OK


async def test_a_message_to_a_run_that_fails_is_read_after_the_retry(driver: Driver) -> None:
    run_id, lease = await driver.in_status(Status.RUNNING)
    await send(driver, run_id, "hello")
    assert await driver.store.finish(lease, Status.FAILED, Writes(events=[END])) is Outcome.OK
    await driver.store.retry(run_id, token="again")
    assert [each.text for each in (await driver.claim())[0].messages] == ["hello"]


async def test_the_number_of_messages_is_bounded(driver: Driver, redis: Redis) -> None:
    run_id = await driver.create()
    for number in range(MAX_UNREAD_MESSAGES):
        await send(driver, run_id, "ü" * MAX_MESSAGE_CHARS, f"t{number}")
    with pytest.raises(LimitExceeded, match=f"{MAX_UNREAD_MESSAGES} unread"):
        await send(driver, run_id, "more", "more")
    assert len((await driver.claim())[0].messages) == MAX_UNREAD_MESSAGES
    await redis.command("HSET", f"run:{run_id}", "messages", MAX_MESSAGES, "read", MAX_MESSAGES)
    with pytest.raises(LimitExceeded, match=f"{MAX_MESSAGES} in all"):
        await send(driver, run_id, "more", "more")


@pytest.mark.parametrize("status", list(Status))
async def test_an_interrupt_is_for_queued_and_running_runs(driver: Driver, status: Status) -> None:
    run_id, _ = await driver.in_status(status)
    expected = {Status.QUEUED: Outcome.OK, Status.RUNNING: Outcome.OK, Status.WAITING: Outcome.SAME}
    outcome = expected.get(status, Outcome.REFUSED)
    assert await driver.store.interrupt(run_id) == (outcome, status)
    repeated = Outcome.REFUSED if outcome is Outcome.REFUSED else Outcome.SAME
    assert await driver.store.interrupt(run_id) == (repeated, status)


async def test_a_worker_learns_of_an_interrupt_from_every_reply_until_the_run_waits(driver: Driver) -> None:
    run_id, lease = await driver.in_status(Status.RUNNING)
    await driver.store.interrupt(run_id)
    reply = await driver.store.emit(lease, Writes(events=[event()]))
    assert (reply.interrupt, reply.cancel) == (True, False)
    lease.batch += 1
    (renewed,) = await driver.store.renew([lease], lease_ms=1)
    assert renewed.interrupt
    await driver.let_lease_expire(1)
    claim, again = await driver.claim()
    assert claim.run.interrupt
    await driver.store.wait(again, Writes(), [question()])
    assert not (await driver.store.get(run_id)).interrupt


async def test_a_cancel_counts_more_than_an_interrupt(driver: Driver) -> None:
    run_id, lease = await driver.in_status(Status.RUNNING)
    await driver.store.interrupt(run_id)
    await driver.store.cancel(run_id)
    (reply,) = await driver.store.renew([lease], lease_ms=LEASE_MS)
    assert (reply.cancel, reply.interrupt) == (True, False)


async def test_a_missing_or_deleted_run_takes_no_message_and_no_interrupt(driver: Driver) -> None:
    run_id, _ = await driver.in_status(Status.CREATED)
    await driver.store.mark_deleting(run_id)
    for each in (run_id, "run_none"):
        assert await send(driver, each, "hello") is Outcome.GONE
        assert (await driver.store.interrupt(each))[0] is Outcome.GONE


async def test_an_emit_with_a_stale_fence_reads_no_message(driver: Driver) -> None:
    run_id, _ = await driver.in_status(Status.RUNNING)
    await send(driver, run_id, "hello")
    reply = await driver.store.emit(Lease(run_id, 99), Writes(read=[1]))
    assert reply.outcome is Outcome.LOST
    assert len(await driver.store.messages(run_id, after=0, last=1)) == 1
