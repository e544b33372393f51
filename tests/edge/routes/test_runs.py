"""Runs as resources: created, shown, listed, changed, deleted."""

import httpx
import pytest

from infra.contract.errors import FilesUnavailable
from infra.contract.states import Status
from tests.edge.stack import PLAN, Files, SimulatedWorker, create


async def test_the_response_to_a_creation_is_the_complete_run(ada: httpx.AsyncClient) -> None:
    answer = await ada.post("/agent/runs", json={**PLAN, "prompt": "say hello", "metadata": {"team": "a"}})
    assert answer.status_code == 201
    run = answer.json()
    assert answer.headers["location"] == f"/agent/runs/{run['run_id']}" == run["links"]["self"]
    assert run["status"] == "queued"
    assert run["prompt"] == "say hello"
    assert run["plan"] == [{"tool": "message", "args": {"text": "hello"}}]
    assert (run["priority"], run["max_attempts"], run["timeout_s"]) == (4, 3, 3600.0)
    assert run["metadata"] == {"team": "a"}
    assert (run["attempt"], run["last_seq"], run["cancel_requested"]) == (0, 0, False)
    assert run["created_ms"] == run["queued_ms"]
    assert (run["started_ms"], run["finished_ms"], run["result"], run["error"]) == (None, None, None, None)
    shown = await ada.get(run["links"]["self"])
    assert shown.status_code == 200
    place = {"ahead": 0, "ahead_capped": False, "begins_ms": None, "workers_alive": 0}
    assert shown.json() == {**run, "queue": place}
    assert shown.headers["cache-control"] == "no-store"


async def test_a_run_created_without_start_waits_for_its_start(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada, start=False)
    assert (await ada.get(f"/agent/runs/{run_id}")).json()["status"] == "created"
    for _ in range(2):
        started = await ada.post(f"/agent/runs/{run_id}/start")
        assert started.status_code == 200
        assert started.json() == {"run_id": run_id, "status": "queued", "cancel_requested": False}
    assert (await ada.get("/agent/queue")).json()["ready"] == 1


async def test_a_finished_run_shows_its_result(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete()
    run = (await ada.get(f"/agent/runs/{run_id}")).json()
    assert (run["status"], run["result"], run["last_seq"], run["attempt"]) == ("succeeded", {"answer": 42}, 5, 1)
    assert run["started_ms"] <= run["finished_ms"]


async def test_cancel_ends_a_queued_run_and_requests_the_end_of_a_running_one(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    queued = await create(ada)
    answer = await ada.post(f"/agent/runs/{queued}/cancel")
    assert answer.json() == {"run_id": queued, "status": "cancelled", "cancel_requested": True}
    running = await create(ada)
    lease = await worker.claim()
    for _ in range(2):
        answer = await ada.post(f"/agent/runs/{running}/cancel", json={})
        assert answer.json() == {"run_id": running, "status": "running", "cancel_requested": True}
    assert (await ada.get(f"/agent/runs/{running}")).json()["cancel_requested"] is True
    await worker.finish(lease, Status.CANCELLED)
    assert (await ada.get(f"/agent/runs/{running}")).json()["status"] == "cancelled"


async def test_retry_queues_a_failed_run_again(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete(status=Status.FAILED)
    answer = await ada.post(f"/agent/runs/{run_id}/retry")
    assert answer.json() == {"run_id": run_id, "status": "queued", "cancel_requested": False}
    await worker.complete()
    assert (await ada.get(f"/agent/runs/{run_id}")).json()["status"] == "succeeded"


async def test_a_retry_with_a_key_counts_once(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete(status=Status.FAILED)
    key = {"Idempotency-Key": "again"}
    assert (await ada.post(f"/agent/runs/{run_id}/retry", headers=key)).json()["status"] == "queued"
    await worker.complete(status=Status.FAILED)
    replay = await ada.post(f"/agent/runs/{run_id}/retry", headers=key)
    assert (replay.status_code, replay.json()["status"]) == (200, "failed")
    assert (await ada.post(f"/agent/runs/{run_id}/retry")).json()["status"] == "queued"


async def test_resume_gives_a_waiting_run_its_input(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.wait(await worker.claim())
    answer = await ada.post(f"/agent/runs/{run_id}/resume", json={"user_input": "yes"})
    assert answer.json() == {"run_id": run_id, "status": "queued", "cancel_requested": False}
    assert (await worker.store.get(run_id)).answers["q"].input == "yes"


async def test_an_action_that_the_status_forbids_gets_409(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete()
    before = await worker.redis.command("HGETALL", f"run:{run_id}")
    for action, body in {"start": {}, "cancel": {}, "retry": {}, "resume": {"user_input": "x"}}.items():
        answer = await ada.post(f"/agent/runs/{run_id}/{action}", json=body)
        problem = answer.json()
        assert answer.status_code == 409
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["type"] == "urn:swissbrain:problem:transition-refused"
        assert problem["run_status"] == "succeeded"
        assert f"cannot {action} a run that is succeeded" in problem["detail"]
    assert await worker.redis.command("HGETALL", f"run:{run_id}") == before
    queued = await create(ada)
    assert (await ada.post(f"/agent/runs/{queued}/retry")).status_code == 409
    assert (await ada.delete(f"/agent/runs/{queued}")).status_code == 409


async def test_delete_removes_files_record_and_log(
    ada: httpx.AsyncClient, worker: SimulatedWorker, files: Files
) -> None:
    for finish in (True, False):
        run_id = await create(ada, start=finish)
        if finish:
            await worker.complete()
        answer = await ada.delete(f"/agent/runs/{run_id}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert files.deleted.pop() == ("ada", run_id)
        assert (await ada.get(f"/agent/runs/{run_id}")).status_code == 404
        assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 404
    assert await worker.size() == 0


async def test_only_a_deletion_can_follow_an_interrupted_deletion(
    ada: httpx.AsyncClient, worker: SimulatedWorker, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the files may be deleted, so a retry must not continue without them."""

    async def interrupted(user_id: str, run_id: str) -> int:
        raise FilesUnavailable("the object store is away")

    failed, unstarted = await create(ada), await create(ada, start=False)
    await worker.complete(status=Status.FAILED)
    with monkeypatch.context() as patch:
        patch.setattr(files, "delete_run", interrupted)
        for run_id in (failed, unstarted):
            assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 503
    fork = {"fork_of": {"run_id": failed, "from_step": 0}, "plan": [{"tool": "message", "args": {"text": "x"}}]}
    for path, body in (
        (f"{failed}/retry", None),
        (f"{unstarted}/start", None),
        (f"{failed}/fork", {"from_step": 0}),
        ("", fork),
    ):
        answer = await ada.post(f"/agent/runs/{path}".rstrip("/"), json=body)
        assert answer.status_code == 409, path
        assert "is being deleted" in answer.json()["detail"]
    for run_id in (failed, unstarted):
        assert (await ada.get(f"/agent/runs/{run_id}")).status_code == 200
        assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 204
    assert await worker.size() == 0


async def test_a_running_run_keeps_its_files(ada: httpx.AsyncClient, worker: SimulatedWorker, files: Files) -> None:
    run_id = await create(ada)
    await worker.claim()
    assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 409
    assert files.deleted == []


async def test_the_queue_shows_its_depths(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    for _ in range(3):
        await create(ada)
    await worker.claim()
    depths = (await ada.get("/agent/queue")).json()
    expected = {"pending": 2, "ready": 2, "delayed": 0, "running": 1, "dead": 0, "unreadable": 0, "waiting": 0}
    assert depths == expected | {"workers": 0}
