"""A Redis that has lost its last changes, as after a failover to a replica that was behind, gives a fence again."""

from collections.abc import Awaitable, Callable

import pytest

from infra.contract.log import Segment
from infra.contract.queue import Claim, ClaimSeq, Lease, Writes
from infra.contract.states import Outcome, Status
from tests.contract.driver import END, LEASE_MS, Driver, event
from tests.support.requests import question
from tests.support.run_store import RunStore

Write = Callable[[RunStore, Lease, Claim], Awaitable[Outcome]]
EVENT = Writes(events=[event()])


async def emit(store: RunStore, lease: Lease, _claim: Claim) -> Outcome:
    return (await store.emit(lease, EVENT)).outcome


async def renew(store: RunStore, lease: Lease, _claim: Claim) -> Outcome:
    return (await store.renew([lease], lease_ms=LEASE_MS))[0].outcome


WRITES: dict[str, Write] = {
    "emit": emit,
    "renew": renew,
    "finish": lambda store, lease, _: store.finish(lease, Status.SUCCEEDED, Writes(events=[END])),
    "release": lambda store, lease, _: store.release(lease, EVENT, delay_ms=0, burn=False),
    "wait": lambda store, lease, _: store.wait(lease, Writes(), [question()]),
    "trim": lambda store, lease, claim: store.trim(claim.run, [Segment(1, 1, lease.fence)], owner=lease.owner),
}


async def claimed(driver: Driver, process: str) -> tuple[Claim, Lease]:
    (claim,) = (await driver.store.claim("w", 1, lease_ms=LEASE_MS, seq=ClaimSeq(process, 1))).claims
    return claim, Lease(claim.run.id, claim.run.fence, claim.run.user, claim.owner)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_the_owner_of_a_claim_that_was_lost_is_refused(driver: Driver, write: Write) -> None:
    run_id = await driver.create()
    before = await driver.redis.command("HGETALL", f"run:{run_id}")
    assert isinstance(before, list)
    lost = await claimed(driver, "a" * 16)
    await driver.redis.command("DEL", f"run:{run_id}", f"run:{run_id}:log", "jobs:leases")
    await driver.redis.command("HSET", f"run:{run_id}", *map(str, before))
    await driver.redis.command("ZADD", "jobs:ready", 1, run_id)
    held = await claimed(driver, "b" * 16)
    assert held[1].fence == lost[1].fence

    unchanged = await driver.dump()
    assert await write(driver.store, lost[1], lost[0]) is Outcome.LOST
    assert await driver.dump() == unchanged
    assert await write(driver.store, held[1], held[0]) is Outcome.OK
