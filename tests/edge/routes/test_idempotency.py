"""Idempotency keys: a repeated request creates one run."""

import asyncio

import httpx

from tests.edge.stack import PLAN, SimulatedWorker

KEY = {"Idempotency-Key": "order-7"}


async def test_the_same_request_finds_its_run(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    first = await ada.post("/agent/runs", json=PLAN, headers=KEY)
    again = await ada.post("/agent/runs", json={**PLAN, "priority": 4, "start": True}, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    await worker.complete()
    later = await ada.post("/agent/runs", json=PLAN, headers=KEY)
    assert (later.status_code, later.json()["status"]) == (200, "succeeded")
    assert (await ada.get("/agent/queue")).json()["ready"] == 0


async def test_another_request_with_the_same_key_is_rejected(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    await ada.post("/agent/runs", json=PLAN, headers=KEY)
    size = await worker.size()
    for other in ({**PLAN, "start": False}, {**PLAN, "priority": 5}, {"prompt": "else"}):
        answer = await ada.post("/agent/runs", json=other, headers=KEY)
        assert answer.status_code == 409
        assert answer.json()["type"] == "urn:swissbrain:problem:idempotency-key-reused"
        assert answer.json()["field"] == "Idempotency-Key"
    assert await worker.size() == size


async def test_users_can_use_the_same_key_independently(ada: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    one = await ada.post("/agent/runs", json=PLAN, headers=KEY)
    two = await bob.post("/agent/runs", json={"prompt": "else"}, headers=KEY)
    assert (one.status_code, two.status_code) == (201, 201)
    assert one.json()["run_id"] != two.json()["run_id"]


async def test_concurrent_duplicates_create_one_run(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    answers = await asyncio.gather(*(ada.post("/agent/runs", json=PLAN, headers=KEY) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert (await ada.get("/agent/queue")).json()["ready"] == 1
    assert len((await ada.get("/agent/runs")).json()["runs"]) == 1


async def test_requests_without_a_key_create_a_run_each(ada: httpx.AsyncClient) -> None:
    ids = {(await ada.post("/agent/runs", json=PLAN)).json()["run_id"] for _ in range(3)}
    assert len(ids) == 3


async def test_a_deleted_run_frees_its_key(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run = (await ada.post("/agent/runs", json=PLAN, headers=KEY)).json()
    await worker.complete()
    assert (await ada.delete(run["links"]["self"])).status_code == 204
    assert (await ada.post("/agent/runs", json={"prompt": "else"}, headers=KEY)).status_code == 201
