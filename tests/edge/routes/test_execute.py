"""Actions of `/agent/execute`, on the same runs as the resource endpoints."""

from typing import Any

import httpx

from infra.contract.states import Status
from tests.edge.stack import PLAN, SimulatedWorker


async def execute(http: httpx.AsyncClient, action: str, **fields: Any) -> httpx.Response:
    return await http.post("/agent/execute", json={"action": action, **fields})


async def test_a_created_run_can_be_started(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    answer = await execute(ada, "create", prompt="say hello", **PLAN, priority=8)
    run = answer.json()
    assert (answer.status_code, run["status"]) == (201, "created")
    assert (await ada.get(f"/agent/runs/{run['run_id']}")).json() == run
    assert (await ada.get("/agent/queue")).json()["ready"] == 0
    started = await execute(ada, "start", run_id=run["run_id"])
    assert (started.status_code, started.json()["status"]) == (200, "queued")
    await worker.complete()
    assert (await execute(ada, "start", run_id=run["run_id"])).status_code == 409


async def test_stop_retry_and_resume_act_on_the_run(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = (await execute(ada, "create", **PLAN)).json()["run_id"]
    stopped = await execute(ada, "stop", run_id=run_id)
    assert stopped.json() == {"run_id": run_id, "status": "cancelled", "cancel_requested": True}
    retried = await execute(ada, "retry", run_id=run_id)
    assert retried.json() == {"run_id": run_id, "status": "queued", "cancel_requested": False}
    await worker.wait(await worker.claim())
    assert (await execute(ada, "retry", run_id=run_id)).status_code == 409
    resumed = await execute(ada, "resume", run_id=run_id, user_input="go on")
    assert resumed.json() == {"run_id": run_id, "status": "queued", "cancel_requested": False}
    await worker.complete()
    assert (await worker.store.get(run_id)).status is Status.SUCCEEDED


async def test_the_create_action_creates_the_same_run_as_the_resource(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    key = {"Idempotency-Key": "both-endpoints"}
    one = await ada.post("/agent/execute", json={"action": "create", **PLAN}, headers=key)
    two = await ada.post("/agent/runs", json={**PLAN, "start": False}, headers=key)
    assert (one.status_code, two.status_code) == (201, 200)
    assert one.json() == two.json()


async def test_an_action_on_a_missing_run_gets_404(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    for action, fields in {"start": {}, "stop": {}, "retry": {}, "resume": {"user_input": "x"}}.items():
        for run_id in ("run_0", "../x", "run_0:log", "a" * 100):
            answer = await execute(ada, action, run_id=run_id, **fields)
            assert (answer.status_code, answer.json()["type"]) == (404, "urn:swissbrain:problem:run-not-found")
    assert await worker.size() == 0
