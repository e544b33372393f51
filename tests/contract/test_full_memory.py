"""A Redis that refuses writes: without memory, runs wait, and lose neither leases nor attempts."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from infra.contract.errors import StoreRefuses, StoreRejected
from infra.contract.redis import Redis
from infra.contract.states import Outcome, Status
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.contract.driver import LEASE_MS, Driver, delete, expire_request

Full = Callable[[], Awaitable[object]]


@pytest.fixture
async def server(redis: Redis, tcp: RedisTcpSettings) -> AsyncIterator[RedisTcp]:
    """Return a connection that configures Redis."""
    server = RedisTcp(tcp)
    yield server
    await server.command("CONFIG", "SET", "maxmemory", 0, "min-replicas-to-write", 0)
    await server.command("ACL", "SETUSER", "default", "+@all")
    await server.close()


@pytest.fixture
def full(server: RedisTcp) -> Full:
    """Let Redis refuse whatever takes memory, from the call on."""
    return lambda: server.command("CONFIG", "SET", "maxmemory", 1)


async def test_a_full_memory_costs_no_lease(driver: Driver, full: Full) -> None:
    run_id, lease = await driver.in_status(Status.RUNNING)
    before = str(await driver.redis.command("ZSCORE", "jobs:leases", run_id))
    await full()

    (reply,) = await driver.store.renew([lease], lease_ms=2 * LEASE_MS)

    assert reply.outcome is Outcome.OK
    assert float(str(await driver.redis.command("ZSCORE", "jobs:leases", run_id))) > float(before)


async def test_a_full_memory_is_no_damage_of_a_record(driver: Driver, full: Full) -> None:
    waiting, _ = await driver.in_status(Status.WAITING)
    newer, _ = await driver.in_status(Status.RUNNING)
    await expire_request(driver.redis, waiting, "q")
    await driver.redis.command("HSET", f"run:{newer}", "v", "99")
    await driver.redis.command("ZADD", "jobs:leases", 1, newer)
    await full()

    reply = await driver.store.claim("w", 1, lease_ms=LEASE_MS)

    assert dict(reply.set_aside) == {}
    assert (await driver.store.depths()).unreadable == 0
    assert (await driver.store.head(waiting)).status is not Status.WAITING
    assert await driver.redis.command("ZSCORE", "jobs:leases", newer) is not None


async def test_what_frees_memory_is_possible_while_it_is_full(driver: Driver, full: Full) -> None:
    ended, _ = await driver.in_status(Status.SUCCEEDED)
    running, lease = await driver.in_status(Status.RUNNING)
    waiting, _ = await driver.in_status(Status.WAITING)
    queued = await driver.create()
    await full()

    for run_id in (queued, waiting):
        assert await driver.store.cancel(run_id) == (Outcome.OK, Status.CANCELLED)
        assert (await delete(driver.store, run_id))[0] is Outcome.OK
    assert await driver.store.cancel(running) == (Outcome.OK, Status.RUNNING)
    assert (await driver.store.renew([lease], lease_ms=LEASE_MS))[0].cancel
    assert (await delete(driver.store, ended))[0] is Outcome.OK


async def test_a_lease_that_cannot_be_renewed_is_not_taken_for_renewed(driver: Driver, server: RedisTcp) -> None:
    _, lease = await driver.in_status(Status.RUNNING)

    await server.command("CONFIG", "SET", "min-replicas-to-write", 1)
    with pytest.raises(StoreRefuses):
        await driver.store.renew([lease], lease_ms=LEASE_MS)
    await server.command("CONFIG", "SET", "min-replicas-to-write", 0)
    await server.command("ACL", "SETUSER", "default", "-hmget")
    with pytest.raises(StoreRejected, match="no permissions"):
        await driver.store.renew([lease], lease_ms=LEASE_MS)
