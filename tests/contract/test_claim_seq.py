"""Claims whose answers are lost, or cannot be read."""

from infra.contract.queue import ClaimSeq, Lease, Writes
from infra.contract.redis import Redis
from infra.contract.runs import RunSpec
from infra.contract.states import Outcome, Status
from tests.contract.driver import LEASE_MS, Driver, event


async def turn(driver: Driver, number: int, *, heard: int | None = None, wanted: int = 1) -> list[tuple[str, int, int]]:
    """The runs that a claim of a process grants, each with its fence and attempt."""
    claimed = await driver.store.claim("w", wanted, lease_ms=LEASE_MS, seq=ClaimSeq("p", number, heard))
    return [(claim.run.id, claim.run.fence, claim.run.attempt) for claim in claimed.claims]


async def test_what_an_answer_granted_that_never_came_is_granted_again_at_once(driver: Driver) -> None:
    store, once = driver.store, RunSpec(prompt="x", max_attempts=1)
    known, unknown, others = [await driver.create(spec=once) for _ in range(3)]
    await turn(driver, 1)
    await turn(driver, 2)
    await store.claim("w", 1, lease_ms=LEASE_MS, seq=ClaimSeq("q", 2))
    assert await turn(driver, 3, heard=1, wanted=2) == [(unknown, 2, 1)]
    assert [each.outcome for each in await store.attempts(unknown)] == ["unanswered", None]
    assert [(await store.get(run_id)).fence for run_id in (known, others)] == [1, 1]
    stale = await store.emit(Lease(unknown, 1), Writes(events=[event()]))
    assert stale.outcome is Outcome.LOST


async def test_a_claim_that_takes_back_leaves_alone_what_it_granted_and_what_came_after(driver: Driver) -> None:
    """Executed twice, and once more after a later one was answered."""
    run_id = await driver.create(spec=RunSpec(prompt="x", max_attempts=2))
    await turn(driver, 1)
    assert await turn(driver, 2, heard=0) == [(run_id, 2, 1)]
    assert await turn(driver, 2, heard=0) == []
    assert await turn(driver, 3, heard=0) == [(run_id, 3, 2)]
    for number in (2, 3):
        assert await turn(driver, number, heard=0) == []
    assert (await driver.store.get(run_id)).status is Status.RUNNING
    (held,) = await driver.store.renew([Lease(run_id, 3)], lease_ms=LEASE_MS)
    assert held.outcome is Outcome.OK


async def test_a_run_that_no_answer_can_carry_uses_up_its_attempts(driver: Driver) -> None:
    run_id = await driver.create(spec=RunSpec(prompt="x", max_attempts=2))
    granted = [await turn(driver, number, heard=0) for number in range(1, 5)]
    assert granted == [[(run_id, 1, 1)], [(run_id, 2, 1)], [(run_id, 3, 2)], []]
    run = await driver.store.get(run_id)
    assert run.error
    assert (run.status, run.error.code) == (Status.FAILED, "worker_lost")


async def test_a_cancelled_run_whose_grant_was_never_heard_of_is_not_granted_again(driver: Driver) -> None:
    run_id = await driver.create()
    await turn(driver, 1)
    await driver.store.cancel(run_id)
    assert await turn(driver, 2, heard=0) == []
    assert (await driver.store.get(run_id)).status is Status.CANCELLED


async def test_a_record_that_cannot_be_read_keeps_no_other_run_from_being_claimed(driver: Driver, redis: Redis) -> None:
    broken, sound = await driver.create(), await driver.create()
    await redis.command("HSET", f"run:{broken}", "spec", '{"plan":[]}')
    claimed = await driver.store.claim("w", 2, lease_ms=LEASE_MS)
    assert [claim.run.id for claim in claimed.claims] == [sound]
    assert [(lease.run_id, lease.fence) for lease in claimed.unreadable] == [(broken, 1)]
