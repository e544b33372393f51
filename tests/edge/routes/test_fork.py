"""Forks over HTTP: their first steps, and the forks that are rejected."""

import httpx
import pytest

from infra.contract.queue import Writes
from infra.contract.states import Status
from tests.edge.stack import Edge, SimulatedWorker, client

PLAN = [{"tool": "message", "args": {"text": text}} for text in ("one", "two", "three")]


async def half_completed(ada: httpx.AsyncClient, worker: SimulatedWorker) -> str:
    """Create a running run of three steps, two of which are completed."""
    run_id = str((await ada.post("/agent/runs", json={"plan": PLAN, "priority": 7})).json()["run_id"])
    lease = await worker.claim()
    await worker.store.emit(lease, Writes(journal={"step:0": "{}", "step:1": "{}"}))
    return run_id


async def test_a_fork_is_a_run_that_names_its_origin(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await half_completed(ada, worker)
    other = {"tool": "message", "args": {"text": "other"}}
    headers = {"Idempotency-Key": "once"}
    body = {"from_step": 1, "plan": [other]}
    answer = await ada.post(f"/agent/runs/{run_id}/fork", json=body, headers=headers)
    assert answer.status_code == 201
    fork = answer.json()
    assert fork["fork_of"] == {"run_id": run_id, "from_step": 1}
    assert (fork["status"], fork["priority"]) == ("queued", 7)
    assert [step["args"]["text"] for step in fork["plan"]] == ["one", "other"]
    again = await ada.post(f"/agent/runs/{run_id}/fork", json=body, headers=headers)
    assert (again.status_code, again.json()["run_id"]) == (200, fork["run_id"])
    same = (await ada.post(f"/agent/runs/{run_id}/fork", json={"from_step": 2, "start": False})).json()
    assert (same["status"], [step["args"]["text"] for step in same["plan"]]) == ("created", ["one", "two", "three"])


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"from_step": 3}, 422, "$.from_step"),
        ({"from_step": -1}, 422, "$.from_step"),
        ({}, 422, "$.from_step"),
        ({"from_step": 1, "plan": [{"tool": "teleport"}]}, 422, "$.plan[1].tool"),
        ({"from_step": 1, "when": 1}, 422, "$.when"),
    ],
)
async def test_invalid_forks_are_rejected(
    ada: httpx.AsyncClient, worker: SimulatedWorker, body: dict[str, object], status: int, field: str
) -> None:
    run_id = await half_completed(ada, worker)
    before = await worker.size()
    answer = await ada.post(f"/agent/runs/{run_id}/fork", json=body)
    assert (answer.status_code, answer.json()["field"]) == (status, field)
    assert await worker.size() == before


async def test_a_fork_can_begin_only_with_identical_completed_steps(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await half_completed(ada, worker)
    wanted = {"plan": [PLAN[1], PLAN[0]], "fork_of": {"run_id": run_id, "from_step": 1}}
    answer = await ada.post("/agent/runs", json=wanted)
    assert (answer.status_code, answer.json()["field"]) == (422, "$.plan")


@pytest.mark.parametrize("deleting", [True, False])
@pytest.mark.parametrize("named", [True, False])
async def test_a_repeated_fork_request_finds_its_run_after_the_source_is_deleted(
    ada: httpx.AsyncClient, worker: SimulatedWorker, named: bool, deleting: bool
) -> None:
    """Through either endpoint, and while the source run is being deleted."""
    run_id = str((await ada.post("/agent/runs", json={"plan": PLAN})).json()["run_id"])
    lease = await worker.claim()
    await worker.store.emit(lease, Writes(journal={"step:0": "{}"}))
    lease.batch += 1
    await worker.finish(lease, Status.FAILED)
    origin = {"fork_of": {"run_id": run_id, "from_step": 1}, "plan": PLAN}
    path, body = ("/agent/runs", origin) if named else (f"/agent/runs/{run_id}/fork", {"from_step": 1})

    async def fork(key: str) -> httpx.Response:
        return await ada.post(path, json=body, headers={"Idempotency-Key": key})

    made = await fork("once")
    assert made.status_code == 201
    if deleting:
        await worker.store.mark_deleting(run_id)
    else:
        assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 204
    again = await fork("once")
    assert (again.status_code, again.json()["run_id"]) == (200, made.json()["run_id"])
    assert (await fork("twice")).status_code == (409 if deleting else 404)
    other = await ada.post(path, json={**body, "start": False}, headers={"Idempotency-Key": "once"})
    assert other.status_code == (409 if deleting else 404)


async def test_a_run_of_another_user_cannot_be_forked(
    ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker
) -> None:
    run_id = await half_completed(ada, worker)
    async with client(edge, "bob") as bob:
        assert (await bob.post(f"/agent/runs/{run_id}/fork", json={"from_step": 0})).status_code == 404
        wanted = {"plan": PLAN, "fork_of": {"run_id": run_id, "from_step": 1}}
        assert (await bob.post("/agent/runs", json=wanted)).status_code == 404


async def test_a_fork_has_the_limits_of_a_run(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    """A plan must have at least one step, and at most as many as a worker accepts in a record."""
    prompted = str((await ada.post("/agent/runs", json={"prompt": "think"})).json()["run_id"])
    await worker.complete(status=Status.FAILED)
    answer = await ada.post(f"/agent/runs/{prompted}/fork", json={"from_step": 0})
    assert answer.status_code == 201
    assert (answer.json()["prompt"], answer.json()["plan"]) == ("think", None)
    await worker.claim()
    run_id = await half_completed(ada, worker)
    before = await worker.size()
    answer = await ada.post(f"/agent/runs/{run_id}/fork", json={"from_step": 1, "plan": PLAN[:1] * 200})
    assert (answer.status_code, answer.json()["field"]) == (422, "$.plan")
    assert "201 steps; allowed are 1 to 200" in answer.json()["detail"]
    assert await worker.size() == before
