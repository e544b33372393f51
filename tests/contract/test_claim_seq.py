"""Claims whose replies are lost, or contain records that cannot be decoded."""

from infra.contract.queue import ClaimSeq, Lease, Writes
from infra.contract.redis import Redis
from infra.contract.runs import RunSpec
from infra.contract.states import Outcome, Status
from tests.contract.driver import LEASE_MS, Driver, event


async def claim(
    driver: Driver, number: int, *, last_acked: int | None = None, wanted: int = 1
) -> list[tuple[str, int, int]]:
    """Send claim `number` of one process; return id, fence and attempt of each granted run."""
    claimed = await driver.store.claim("w", wanted, lease_ms=LEASE_MS, seq=ClaimSeq("p", number, last_acked))
    return [(claim.run.id, claim.run.fence, claim.run.attempt) for claim in claimed.claims]


async def test_the_next_claim_grants_again_what_a_lost_reply_granted(driver: Driver) -> None:
    store, once = driver.store, RunSpec(prompt="x", max_attempts=1)
    acknowledged, unacknowledged, of_another_process = [await driver.create(spec=once) for _ in range(3)]
    await claim(driver, 1)
    await claim(driver, 2)
    await store.claim("w", 1, lease_ms=LEASE_MS, seq=ClaimSeq("q", 2))

    assert await claim(driver, 3, last_acked=1, wanted=2) == [(unacknowledged, 2, 1)]

    assert [each.outcome for each in await store.attempts(unacknowledged)] == ["unanswered", None]
    assert [(await store.get(run_id)).fence for run_id in (acknowledged, of_another_process)] == [1, 1]

    stale = await store.emit(Lease(unacknowledged, 1), Writes(events=[event()]))
    assert stale.outcome is Outcome.LOST


async def test_a_repeated_claim_undoes_neither_its_own_grant_nor_that_of_a_later_claim(driver: Driver) -> None:
    """Execute claim 2 twice, and once more after the reply of claim 3."""
    run_id = await driver.create(spec=RunSpec(prompt="x", max_attempts=2))
    await claim(driver, 1)

    assert await claim(driver, 2, last_acked=0) == [(run_id, 2, 1)]
    assert await claim(driver, 2, last_acked=0) == []
    assert await claim(driver, 3, last_acked=0) == [(run_id, 3, 2)]
    for number in (2, 3):
        assert await claim(driver, number, last_acked=0) == []

    assert (await driver.store.get(run_id)).status is Status.RUNNING

    (reply,) = await driver.store.renew([Lease(run_id, 3)], lease_ms=LEASE_MS)
    assert reply.outcome is Outcome.OK


async def test_a_run_too_large_for_any_reply_uses_up_its_attempts(driver: Driver) -> None:
    run_id = await driver.create(spec=RunSpec(prompt="x", max_attempts=2))

    granted = [await claim(driver, number, last_acked=0) for number in range(1, 5)]

    assert granted == [[(run_id, 1, 1)], [(run_id, 2, 1)], [(run_id, 3, 2)], []]
    run = await driver.store.get(run_id)
    assert run.error
    assert (run.status, run.error.code) == (Status.FAILED, "worker_lost")


async def test_a_cancelled_run_whose_grant_was_lost_is_not_granted_again(driver: Driver) -> None:
    run_id = await driver.create()
    await claim(driver, 1)
    await driver.store.cancel(run_id)
    assert await claim(driver, 2, last_acked=0) == []
    assert (await driver.store.get(run_id)).status is Status.CANCELLED


async def test_a_cancelled_run_of_a_dead_process_does_not_wait_for_its_lease(driver: Driver) -> None:
    """A run whose previous attempt was lost as well waits, because it may kill its workers. This one runs no more."""
    run_id = await driver.create()
    for process, dead in (("a", ""), ("b", "a")):
        (claim,) = (await driver.store.claim("w", 1, lease_ms=LEASE_MS, seq=ClaimSeq(process, 1, dead=(dead,)))).claims
        assert claim.run.id == run_id
    assert await driver.store.cancel(run_id) == (Outcome.OK, Status.RUNNING)

    await driver.store.claim("w", 1, lease_ms=LEASE_MS, seq=ClaimSeq("c", 1, dead=("b",)))

    assert (await driver.store.get(run_id)).status is Status.CANCELLED


async def test_an_unreadable_record_does_not_prevent_the_claim_of_other_runs(driver: Driver, redis: Redis) -> None:
    unreadable, readable = await driver.create(), await driver.create()
    await redis.command("HSET", f"run:{unreadable}", "spec", '{"plan":[]}')

    claimed = await driver.store.claim("w", 2, lease_ms=LEASE_MS)

    assert [claim.run.id for claim in claimed.claims] == [readable]
    assert [(lease.run_id, lease.fence) for lease in claimed.unreadable] == [(unreadable, 1)]
