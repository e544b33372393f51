"""Runs whose program may outlive its worker, when they are cancelled or end without an owner.

The program is that of an open execution, or of a session that a call has noted something about.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec import structs

from infra.contract.queue import Lease, Writes
from infra.contract.redis import Redis
from infra.contract.states import Outcome, Status
from tests.contract.driver import LEASE_MS, SPEC, Driver, event, strings

CONTROL = "agent:control"
PROGRAMS = {"execution": '{"number":1}', "session": '"https://example.org/"'}
"""Values of the journal, by key."""


@asynccontextmanager
async def nudges(redis: Redis) -> AsyncIterator[list[str]]:
    """Collect the messages to the workers."""
    found: list[str] = []
    async with redis.subscribe(CONTROL) as messages:  # type: ignore[attr-defined]

        async def collect() -> None:
            async for message in messages:
                found.append(message)  # noqa: PERF401

        task = asyncio.create_task(collect())
        yield found
        # The channel is ordered, so everything before this message has arrived once it has.
        await redis.command("PUBLISH", CONTROL, "last")
        async with asyncio.timeout(20):
            while "last" not in found:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def executing(driver: Driver, lease: Lease, program: str) -> None:
    reply = await driver.store.emit(lease, Writes(events=[event()], journal={program: PROGRAMS[program]}))
    assert reply.outcome is Outcome.OK
    lease.batch += 1


async def lease_ms_left(redis: Redis) -> float:
    """Return the milliseconds until the only lease expires."""
    score = strings(await redis.command("ZRANGE", "jobs:leases", 0, 0, "WITHSCORES"))[1]
    seconds, micros = strings(await redis.command("TIME"))
    return float(score) - 1000 * int(seconds) - int(micros) / 1000


@pytest.mark.parametrize("program", [*PROGRAMS, ""])
async def test_a_cancel_shortens_the_lease_if_a_program_may_be_without_a_worker(
    driver: Driver, redis: Redis, program: str
) -> None:
    run_id = await driver.create()
    _, lease = await driver.claim()
    if program:
        await executing(driver, lease, program)
    async with nudges(redis) as found:
        assert await driver.store.cancel(run_id) == (Outcome.OK, Status.RUNNING)
        left_ms = await lease_ms_left(redis)
    assert f"cancel {run_id}" in found
    assert ("recover 2000" in found) == bool(program)
    assert (left_ms <= 2000) == bool(program)
    # A worker that is alive keeps its run.
    (reply,) = await driver.store.renew([lease], lease_ms=LEASE_MS)
    assert (reply.outcome, reply.cancel) == (Outcome.OK, True)
    assert await lease_ms_left(redis) > 2000


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("max_attempts", [1, 3])
async def test_a_run_that_ends_by_its_lease_announces_its_program(
    driver: Driver, redis: Redis, max_attempts: int, program: str
) -> None:
    run_id = await driver.create(spec=structs.replace(SPEC, max_attempts=max_attempts))
    _, lease = await driver.claim()
    await executing(driver, lease, program)
    if max_attempts > 1:
        await driver.store.cancel(run_id)
    await redis.command("ZADD", "jobs:leases", 1, run_id)
    async with nudges(redis) as found:
        await driver.store.claim("w", 0, lease_ms=LEASE_MS)
    assert f"ended {run_id}" in found
    expected = Status.FAILED if max_attempts == 1 else Status.CANCELLED
    assert (await driver.store.get(run_id)).status is expected
    assert await driver.store.open_execution(run_id) is None


@pytest.mark.parametrize("program", [*PROGRAMS, ""])
async def test_a_cancel_of_a_queued_run_announces_its_program(driver: Driver, redis: Redis, program: str) -> None:
    run_id = await driver.create()
    _, lease = await driver.claim()
    if program:
        await executing(driver, lease, program)
    await driver.store.release(lease, Writes(events=[event()]), delay_ms=0, burn=False)
    async with nudges(redis) as found:
        assert await driver.store.cancel(run_id) == (Outcome.OK, Status.CANCELLED)
        assert await driver.store.cancel(run_id) == (Outcome.SAME, Status.CANCELLED)
    assert found.count(f"ended {run_id}") == int(bool(program))
