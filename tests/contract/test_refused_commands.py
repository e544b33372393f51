"""Commands that Redis refuses inside a script, for a lack of rights or a damaged set, lose no healthy run."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from infra.contract.errors import RecordUnreadable, StoreRejected
from infra.contract.queue import ClaimSeq, Writes
from infra.contract.redis import Redis
from infra.contract.runs import RunSpec
from infra.contract.states import Status
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.contract.driver import END, LEASE_MS, USER, Driver, event, expire_request, keys_without_ttl
from tests.support.requests import answers, question
from tests.support.run_store import RunStore

Rights = Callable[..., Awaitable[object]]
Call = Callable[[RunStore], Awaitable[object]]


@pytest.fixture
async def rights(redis: Redis, tcp: RedisTcpSettings) -> AsyncIterator[Rights]:
    """Change the rights of the user that all clients are; whoever checks something gives them back."""
    server = RedisTcp(tcp)

    async def change(*rules: str) -> object:
        return await server.command("ACL", "SETUSER", "default", *rules)

    yield change
    await change("+@all", "allchannels")
    await server.close()


@pytest.mark.parametrize("rule", ["resetchannels", "-publish", "-xadd", "-hset", "-hgetall", "-zadd", "-expire"])
async def test_a_claim_without_a_right_changes_nothing(driver: Driver, rights: Rights, rule: str) -> None:
    """A new user of Redis has no right to channels: such a worker set all healthy runs aside, one by one."""
    lost, _ = await driver.in_status(Status.RUNNING)
    await driver.create()
    delayed = await driver.create(spec=RunSpec(prompt="x", delay_s=60))
    await driver.redis.command("ZADD", "jobs:leases", 1, lost)
    await driver.make_due(delayed)
    before = await driver.dump()
    await rights(rule)

    with pytest.raises(StoreRejected, match="no permissions"):
        await driver.store.claim("w", 3, lease_ms=LEASE_MS, seq=ClaimSeq("p", 1))

    await rights("+@all", "allchannels")
    assert await driver.dump() == before
    assert len((await driver.store.claim("w", 3, lease_ms=LEASE_MS)).claims) == 3


@pytest.mark.parametrize("rule", ["resetchannels", "-hset"])
async def test_an_event_that_cannot_be_published_or_counted_is_not_stored_either(
    driver: Driver, rights: Rights, rule: str
) -> None:
    """The log would be ahead of the record, and nothing could be added to it any more."""
    _, lease = await driver.in_status(Status.RUNNING)
    queued = await driver.create()
    before = await driver.dump()
    await rights(rule)

    for call in (driver.store.emit(lease, Writes(events=[event()])), driver.store.cancel(queued)):
        with pytest.raises(StoreRejected, match="no permissions"):
            await call

    await rights("+@all", "allchannels")
    assert await driver.dump() == before


async def recovered(driver: Driver) -> Call:
    run_id, _ = await driver.in_status(Status.RUNNING)
    await driver.redis.command("ZADD", "jobs:leases", 1, run_id)
    return _claim


async def promoted(driver: Driver) -> Call:
    await driver.make_due(await driver.create(spec=RunSpec(prompt="x", delay_s=60)))
    return _claim


async def expired(driver: Driver) -> Call:
    run_id, _ = await driver.in_status(Status.WAITING)
    requests = str(await driver.redis.command("HGET", f"run:{run_id}", "requests"))
    await driver.redis.command("HSET", f"run:{run_id}", "requests", requests.replace("fail", "deny"))
    await expire_request(driver.redis, run_id, "q")
    return _claim


async def resumed(driver: Driver) -> Call:
    run_id, _ = await driver.in_status(Status.WAITING)
    return lambda store: store.resume(run_id, answers("q"), by=USER, token="t")


async def retried(driver: Driver) -> Call:
    run_id, _ = await driver.in_status(Status.FAILED)
    return lambda store: store.retry(run_id, token="t")


async def started(driver: Driver) -> Call:
    run_id = await driver.create(start=False)
    return lambda store: store.start(run_id)


async def released(driver: Driver) -> Call:
    _, lease = await driver.in_status(Status.RUNNING)
    return lambda store: store.release(lease, Writes(events=[event()]), delay_ms=0, burn=True)


def _claim(store: RunStore) -> Awaitable[object]:
    return store.claim("w", 1, lease_ms=LEASE_MS)


@pytest.mark.parametrize("prepare", [recovered, promoted, expired, resumed, retried, started, released])
async def test_no_run_is_lost_by_a_set_of_ready_runs_that_is_damaged(
    driver: Driver, prepare: Callable[[Driver], Awaitable[Call]]
) -> None:
    """Its record would say `queued`, and no set would have it."""
    call = await prepare(driver)
    before = await driver.dump()
    await driver.redis.command("SET", "jobs:ready", "garbage", "EX", 60)

    with pytest.raises((StoreRejected, RecordUnreadable)):
        await call(driver.store)

    await driver.redis.command("DEL", "jobs:ready")
    assert await driver.dump() == before


async def cancelled(driver: Driver) -> tuple[str, Call]:
    run_id = await driver.create()
    return run_id, lambda store: store.cancel(run_id)


async def finished(driver: Driver) -> tuple[str, Call]:
    run_id, lease = await driver.in_status(Status.RUNNING)
    return run_id, lambda store: store.finish(lease, Status.FAILED, Writes(events=[END]))


async def made_waiting(driver: Driver) -> tuple[str, Call]:
    run_id, lease = await driver.in_status(Status.RUNNING)
    return run_id, lambda store: store.wait(lease, Writes(events=[event()]), [question()])


async def answered_in_part(driver: Driver) -> tuple[str, Call]:
    run_id, lease = await driver.in_status(Status.RUNNING)
    await driver.store.wait(lease, Writes(events=[event()]), [question("a"), question("b")])
    return run_id, lambda store: store.resume(run_id, answers("a"), by=USER, token="t")


@pytest.mark.parametrize(
    ("prepare", "key", "status"),
    [
        (cancelled, "pending", Status.CANCELLED),
        (cancelled, "delayed", Status.CANCELLED),
        (finished, "leases", Status.FAILED),
        (made_waiting, "leases", Status.WAITING),
        (made_waiting, "waiting", Status.WAITING),
        (made_waiting, "delayed", Status.WAITING),
        (answered_in_part, "waiting", Status.WAITING),
    ],
)
async def test_a_change_that_is_stored_does_not_fail_by_a_set_that_is_damaged(
    driver: Driver, prepare: Callable[[Driver], Awaitable[tuple[str, Call]]], key: str, status: Status
) -> None:
    """Its caller was told that it had failed, and the record of a run that had ended stayed for ever."""
    run_id, call = await prepare(driver)
    await driver.redis.command("SET", f"jobs:{key}", "garbage", "EX", 60)

    await call(driver.store)

    assert (await driver.store.head(run_id)).status is status
    assert await keys_without_ttl(driver.redis) == []
