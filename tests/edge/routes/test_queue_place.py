"""The block `queue` of a queued run: why it has not begun."""

import time

import httpx
import pytest

from infra.contract.queue import ClaimSeq
from infra.contract.states import Status
from tests.edge.stack import PLAN, SimulatedWorker, create


async def test_a_queued_run_says_how_many_are_before_it_and_whether_a_worker_is_alive(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    await create(bob)
    run_id = await create(ada)
    shown = (await ada.get(f"/agent/runs/{run_id}")).json()
    assert shown["queue"] == {"ahead": 1, "ahead_capped": False, "begins_ms": None, "workers_alive": 0}
    await worker.store.claim("w", 0, lease_ms=60_000, seq=ClaimSeq("p"), alive=True)
    await worker.claim()
    shown = (await ada.get(f"/agent/runs/{run_id}")).json()
    assert shown["queue"] == {"ahead": 0, "ahead_capped": False, "begins_ms": None, "workers_alive": 1}


async def test_a_delayed_run_says_when_it_begins(ada: httpx.AsyncClient) -> None:
    at = int(time.time() * 1000) + 3_600_000
    run_id = await create(ada, start_at_ms=at)
    assert (await ada.get(f"/agent/runs/{run_id}")).json()["queue"]["begins_ms"] == at


@pytest.mark.parametrize("end", [Status.SUCCEEDED, Status.CANCELLED])
async def test_only_a_queued_run_that_is_got_by_itself_has_a_place(
    ada: httpx.AsyncClient, worker: SimulatedWorker, end: Status
) -> None:
    assert (await ada.post("/agent/runs", json=PLAN)).json()["queue"] is None
    created = await create(ada, start=False)
    assert (await ada.get(f"/agent/runs/{created}")).json()["queue"] is None
    lease = await worker.claim()
    assert (await ada.get(f"/agent/runs/{lease.run_id}")).json()["queue"] is None
    await worker.finish(lease, end)
    assert (await ada.get(f"/agent/runs/{lease.run_id}")).json()["queue"] is None


async def test_a_run_that_leaves_the_queue_just_now_has_no_place(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada)
    await worker.redis.command("DEL", "jobs:ready")
    shown = (await ada.get(f"/agent/runs/{run_id}")).json()
    assert (shown["status"], shown["queue"]) == ("queued", None)
