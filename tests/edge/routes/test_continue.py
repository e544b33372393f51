"""Runs that continue others over HTTP: scopes, owners, states of the source, repeated requests."""

import httpx
import pytest

from infra.contract.states import Status
from tests.edge.stack import Edge, SimulatedWorker, client, create


async def follow_up(http: httpx.AsyncClient, source: str, key: str | None = None) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await http.post("/agent/runs", json={"prompt": "And now?", "continue_of": source}, headers=headers)


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
async def test_an_ended_run_is_continued_once_for_a_key(
    ada: httpx.AsyncClient, worker: SimulatedWorker, status: Status
) -> None:
    source = await create(ada)
    await worker.complete(status=status)
    first = await follow_up(ada, source, "k")
    assert first.status_code == 201
    assert (await ada.delete(f"/agent/runs/{source}")).status_code == 204
    again = await follow_up(ada, source, "k")
    assert (again.status_code, again.json()["run_id"]) == (200, first.json()["run_id"])


async def test_runs_that_have_not_ended_or_are_gone_are_not_continued(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    source = await create(ada)
    before = await worker.size()
    refused = await follow_up(ada, source)
    assert (refused.status_code, refused.json()["run_status"]) == (409, "queued")
    await worker.claim()
    assert (await follow_up(ada, source)).status_code == 409
    assert (await follow_up(ada, "run_0")).status_code == 404
    assert await worker.size() == before


async def test_a_run_of_another_user_is_not_found(ada: httpx.AsyncClient, worker: SimulatedWorker, edge: Edge) -> None:
    source = await create(ada)
    await worker.complete()
    async with client(edge, "bob") as bob:
        assert (await follow_up(bob, source)).status_code == 404


async def test_continuing_needs_the_scope_to_read(ada: httpx.AsyncClient, worker: SimulatedWorker, edge: Edge) -> None:
    source = await create(ada)
    await worker.complete()
    body = {"prompt": "And now?", "continue_of": source}
    async with client(edge, "writer") as writer:
        one = await writer.post("/agent/runs", json=body)
        other = await writer.post("/agent/execute", json={"action": "create", **body})
        batch = await writer.post("/agent/runs/batch", json={"runs": [body]})
    assert (one.status_code, other.status_code) == (403, 403)
    assert "runs:read" in one.json()["detail"]
    assert "runs:read" in batch.text
    assert "run_id" not in batch.text


async def test_a_run_with_a_plan_continues_nothing(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    source = await create(ada)
    await worker.complete()
    body = {"plan": [{"tool": "message", "args": {"text": "a"}}], "continue_of": source}
    answer = await ada.post("/agent/runs", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "$.continue_of")
