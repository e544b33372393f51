"""Attempts of a run: the workers that claimed it, and the outcomes."""

from typing import Any

import httpx

from infra.contract.log import NewEvent
from infra.contract.queue import Lease, Writes
from infra.contract.states import Outcome, Status
from tests.edge.stack import SimulatedWorker, create
from tests.support.waiting import until

FIELDS = {"fence", "attempt", "worker", "started_ms", "ended_ms", "outcome"}


async def attempts(http: httpx.AsyncClient, run_id: str) -> list[dict[str, Any]]:
    """Return the attempts of a run, after a check of their fields."""
    answer = await http.get(f"/agent/runs/{run_id}/attempts")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {"attempts"}
    found: list[dict[str, Any]] = body["attempts"]
    for each in found:
        assert each.keys() == FIELDS
        assert (each["ended_ms"] is None) == (each["outcome"] is None)
        assert each["ended_ms"] is None or each["started_ms"] <= each["ended_ms"]
    return found


def columns(found: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(each[name] for name in names) for each in found]


async def claim(worker: SimulatedWorker, name: str, *, lease_ms: int = 60_000) -> Lease:
    """Claim the only run as soon as it is ready."""
    claims: list[Lease] = []

    async def is_claimed() -> bool:
        found = (await worker.store.claim(name, 1, lease_ms=lease_ms)).claims
        claims.extend(Lease(each.run.id, each.run.fence) for each in found)
        return bool(claims)

    await until(is_claimed, "the run is claimed")
    return claims[0]


EVENT = NewEvent(ts=1, type="run.requeued", data={"reason": "x", "delay_ms": 0})


async def requeue(worker: SimulatedWorker, lease: Lease, *, burn: bool) -> None:
    writes = Writes(events=[EVENT])
    assert await worker.store.release(lease, writes, delay_ms=0, burn=burn) is Outcome.OK


async def test_a_run_that_was_never_claimed_has_no_attempts(ada: httpx.AsyncClient) -> None:
    for start in (True, False):
        assert await attempts(ada, await create(ada, start=start)) == []


async def test_a_running_attempt_has_no_end_and_an_ended_one_has_an_outcome(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    lease = await claim(worker, "w-1")
    (running,) = await attempts(ada, run_id)
    run = (await ada.get(f"/agent/runs/{run_id}")).json()
    expected = {"fence": lease.fence, "attempt": 1, "worker": "w-1", "started_ms": run["started_ms"]}
    assert running == {**expected, "ended_ms": None, "outcome": None}
    await worker.finish(lease)
    run = (await ada.get(f"/agent/runs/{run_id}")).json()
    assert await attempts(ada, run_id) == [{**expected, "ended_ms": run["finished_ms"], "outcome": "succeeded"}]


async def test_each_outcome_of_an_attempt_is_shown_with_whether_it_counts(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, max_attempts=5)
    await requeue(worker, await claim(worker, "drains"), burn=False)
    await requeue(worker, await claim(worker, "gives-back"), burn=True)
    unable = await claim(worker, "is-unable")
    assert await worker.store.release_unable(unable, Writes(events=[EVENT]), delay_ms=0) is Outcome.OK
    await claim(worker, "is-lost", lease_ms=1)
    await worker.wait(await claim(worker, "waits"))
    await ada.post(f"/agent/runs/{run_id}/resume", json={"user_input": "yes"})
    await worker.finish(await claim(worker, "fails"), Status.FAILED)
    await ada.post(f"/agent/runs/{run_id}/retry")
    await worker.finish(await claim(worker, "is-cancelled"), Status.CANCELLED)
    await ada.post(f"/agent/runs/{run_id}/retry")
    await worker.finish(await claim(worker, "ends"))
    assert columns(await attempts(ada, run_id), "worker", "attempt", "outcome") == [
        ("drains", 1, "drained"),
        ("gives-back", 1, "given_back"),
        ("is-unable", 2, "unable"),
        ("is-lost", 2, "lease_expired"),
        ("waits", 3, "waiting"),
        ("fails", 3, "failed"),
        ("is-cancelled", 1, "cancelled"),
        ("ends", 1, "succeeded"),
    ]


async def test_the_oldest_of_many_attempts_is_listed_first(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    names = [f"w-{number}" for number in range(1, 131)]
    for name in names:
        await requeue(worker, await claim(worker, name), burn=False)
    found = await attempts(ada, run_id)
    assert columns(found, "worker", "attempt") == [(name, 1) for name in names]
    fences = [each["fence"] for each in found]
    assert fences == sorted(set(fences))
    times = [each["started_ms"] for each in found]
    assert times == sorted(times)


async def test_attempts_belong_to_one_run(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    one, other = [(await create(ada), await claim(worker, name)) for name in ("one", "other")]
    assert columns(await attempts(ada, one[0]), "worker") == [("one",)]
    assert columns(await attempts(ada, other[0]), "worker") == [("other",)]


async def test_the_attempts_of_another_users_run_look_like_those_of_a_missing_run(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    await worker.complete()
    answers = [await bob.get(f"/agent/runs/{each}/attempts") for each in (run_id, "run_none")]
    for answer in answers:
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:swissbrain:problem:run-not-found"
    assert answers[0].json()["detail"].replace(run_id, "run_none") == answers[1].json()["detail"]
    assert len(await attempts(ada, run_id)) == 1
    assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 204
    assert (await ada.get(f"/agent/runs/{run_id}/attempts")).status_code == 404
