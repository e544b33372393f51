"""Steps of a run: in every state of the run, with results of every kind."""

from typing import Any

import httpx
import pytest
from msgspec import json

from infra.contract.journal import BlobRef, StepRecord, StepTimes
from infra.contract.log import NewEvent
from infra.contract.queue import Lease, Writes
from infra.contract.runs import RunError
from infra.contract.states import Outcome, Status
from infra.settings import RedisRestSettings
from infra.workspace import Workspaces
from tests.edge.stack import SimulatedWorker, client, create, finished, note, serve

NAMES = ("first", "second", "third")
PLAN = [{"tool": "message", "args": {"text": "x"}, "name": name} for name in NAMES]
FIELDS = {"index", "name", "tool", "plan_step", "status", "started_ms", "duration_ms", "result", "kept", "error"}


def event(kind: str, step: int | None = None, ts: int = 5, **data: Any) -> NewEvent:
    return NewEvent(ts=ts, type=kind, step=step, data=data)


def record(number: int, **more: Any) -> str:
    made = StepRecord(tool="message", started_ms=number, duration_ms=7, result={"number": number, **more})
    return json.encode(made).decode()


async def emit(worker: SimulatedWorker, lease: Lease, *events: NewEvent, **journal: str) -> None:
    entries = {key.replace("_", ":"): text for key, text in journal.items()}
    reply = await worker.store.emit(lease, Writes(events=[*events], journal=entries))
    assert reply.outcome is Outcome.OK
    lease.batch += 1


async def steps(http: httpx.AsyncClient, run_id: str) -> list[dict[str, Any]]:
    """Return the steps of a run, after a check of their fields."""
    answer = await http.get(f"/agent/runs/{run_id}/steps")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["run_id"] == run_id
    found: list[dict[str, Any]] = body["steps"]
    assert [each["index"] for each in found] == [*range(len(found))]
    assert all(each.keys() == FIELDS for each in found)
    return found


def statuses(found: list[dict[str, Any]]) -> list[str]:
    return [each["status"] for each in found]


async def second_step_under_way(worker: SimulatedWorker) -> Lease:
    """Claim the only run, complete its first step and begin the second one."""
    lease = await worker.claim()
    await emit(worker, lease, event("step.started", 0, ts=1, name="first"))
    await emit(worker, lease, event("step.finished", 0, status="succeeded", duration_ms=7), step_0=record(1))
    await emit(worker, lease, event("step.started", 1, ts=22, name="second"), note(1))
    return lease


async def fail(worker: SimulatedWorker, lease: Lease, error: RunError, *events: NewEvent) -> None:
    writes = Writes(events=[*events, finished(Status.FAILED)])
    assert await worker.store.finish(lease, Status.FAILED, writes, error=error) is Outcome.OK


@pytest.mark.parametrize("start", [False, True])
async def test_all_steps_of_a_run_that_has_not_begun_are_pending(
    ada: httpx.AsyncClient, worker: SimulatedWorker, start: bool
) -> None:
    found = await steps(ada, await create(ada, plan=PLAN, start=start))
    assert statuses(found) == ["pending"] * 3
    assert [each["name"] for each in found] == [*NAMES]
    assert {each["tool"] for each in found} == {"message"}
    assert all(each[name] is None for each in found for name in FIELDS - {"index", "name", "tool", "status"})


async def test_a_run_without_a_plan_has_no_steps(ada: httpx.AsyncClient) -> None:
    answer = await ada.post("/agent/runs", json={"prompt": "hello"})
    assert await steps(ada, answer.json()["run_id"]) == []


async def test_the_step_under_way_is_running_and_the_one_before_has_its_result(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, plan=PLAN)
    lease = await worker.claim()
    assert statuses(await steps(ada, run_id)) == ["pending"] * 3  # claimed, but not begun
    await emit(worker, lease, event("step.started", 0, ts=1, name="first"), step_0=record(1))
    await emit(worker, lease, event("step.started", 1, ts=22, name="second"))
    for _ in range(3):
        await emit(worker, lease, *(note(number) for number in range(100)))
    first, second, third = await steps(ada, run_id)
    assert (first["status"], first["result"], first["kept"]) == ("succeeded", {"number": 1}, None)
    assert (first["started_ms"], first["duration_ms"]) == (1, 7)
    assert (second["status"], second["started_ms"], second["duration_ms"]) == ("running", 22, None)
    assert third["status"] == "pending"
    await worker.finish(lease, Status.CANCELLED)


async def test_a_failed_step_has_the_error_of_the_run(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada, plan=PLAN)
    lease = await second_step_under_way(worker)
    error = RunError(code="exit_code", message="exit code 1", step=1)
    await fail(worker, lease, error, event("step.finished", 1, status="failed", duration_ms=9))
    _, second, third = found = await steps(ada, run_id)
    assert statuses(found) == ["succeeded", "failed", "pending"]
    assert second["error"] == {"code": "exit_code", "message": "exit code 1", "step": 1}
    assert (second["started_ms"], second["duration_ms"], third["error"]) == (22, 9, None)


async def test_a_run_that_times_out_or_loses_its_worker_fails_the_step_under_way(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, plan=PLAN)
    await fail(worker, await second_step_under_way(worker), RunError(code="timeout", message="too long"))
    _, second, _ = found = await steps(ada, run_id)
    assert statuses(found) == ["succeeded", "failed", "pending"]
    assert (second["error"]["code"], second["started_ms"], second["duration_ms"]) == ("timeout", 22, None)


async def test_a_run_that_fails_between_two_steps_fails_none_of_them(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, plan=PLAN)
    lease = await worker.claim()
    await emit(worker, lease, event("step.finished", 0, status="succeeded", duration_ms=7), step_0=record(1))
    await fail(worker, lease, RunError(code="files_unavailable", message="away"))
    assert statuses(await steps(ada, run_id)) == ["succeeded", "pending", "pending"]


async def test_the_step_under_way_of_a_cancelled_run_is_cancelled(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, plan=PLAN)
    await worker.finish(await second_step_under_way(worker), Status.CANCELLED)
    _, second, _ = found = await steps(ada, run_id)
    assert statuses(found) == ["succeeded", "cancelled", "pending"]
    assert (second["started_ms"], second["error"]) == (22, None)


async def test_the_failed_step_of_a_retried_run_is_pending_until_it_begins_again(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, plan=PLAN)
    lease = await second_step_under_way(worker)
    error = RunError(code="exit_code", message="exit code 1", step=1)
    await fail(worker, lease, error, event("step.finished", 1, status="failed", duration_ms=9))
    assert (await ada.post(f"/agent/runs/{run_id}/retry")).status_code == 200
    for claimed in (False, True):
        lease = await worker.claim() if claimed else lease
        _, second, _ = found = await steps(ada, run_id)
        assert statuses(found) == ["succeeded", "pending", "pending"]
        assert (second["error"], second["started_ms"]) == (None, None)
    await emit(worker, lease, event("step.started", 1, ts=40, name="second"))
    assert [each["started_ms"] for each in await steps(ada, run_id)] == [1, 40, None]
    await worker.finish(lease, Status.CANCELLED)


async def test_a_retried_run_that_is_cancelled_in_the_queue_has_no_cancelled_step(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, plan=PLAN)
    await worker.finish(await second_step_under_way(worker), Status.CANCELLED)
    await ada.post(f"/agent/runs/{run_id}/retry")
    await ada.post(f"/agent/runs/{run_id}/cancel")
    assert statuses(await steps(ada, run_id)) == ["succeeded", "pending", "pending"]


async def test_a_fork_has_the_results_that_it_took_over(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    source = await create(ada, plan=PLAN)
    await worker.finish(await second_step_under_way(worker), Status.CANCELLED)
    answer = await ada.post(f"/agent/runs/{source}/fork", json={"from_step": 1})
    fork = answer.json()["run_id"]
    assert statuses(await steps(ada, fork)) == ["pending"] * 3  # its worker takes the results over
    lease = await worker.claim()
    await emit(worker, lease, event("run.forked", run_id=source, from_step=1), step_0=record(1))
    await emit(worker, lease, event("step.started", 1, ts=50, name="second"))
    first, second, _ = await steps(ada, fork)
    assert (first["status"], first["result"]) == ("succeeded", {"number": 1})
    assert (second["status"], second["started_ms"]) == ("running", 50)
    await worker.finish(lease, Status.CANCELLED)


async def test_a_damaged_entry_does_not_hide_the_other_steps(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    plan = [*PLAN, *PLAN]
    run_id = await create(ada, plan=plan)
    lease = await worker.claim()
    version_1 = '{"tool":"message","duration_ms":8,"result":{}}'
    damaged = {"step_0": "{broken", "step_1": "[1]", "step_2": '{"$kept":7}', "step_3": '{"tool":"message"}'}
    await emit(worker, lease, **damaged, step_4=version_1, step_5=record(5))
    await worker.finish(lease)
    found = await steps(ada, run_id)
    assert statuses(found) == ["succeeded"] * 6
    for each in found[:4]:
        assert each["error"]["code"] == "unreadable_record"
        assert (each["result"], each["kept"], each["duration_ms"]) == (None, None, None)
    assert (found[4]["result"], found[4]["started_ms"], found[4]["duration_ms"]) == ({}, None, 8)
    assert found[5]["result"] == {"number": 5}


async def test_a_result_that_is_stored_as_a_file_has_its_times_and_a_link(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, plan=PLAN)
    lease = await worker.claim()
    new = BlobRef(name="kept/1-1", times=StepTimes(started_ms=3, duration_ms=4))
    await emit(worker, lease, step_0=json.encode(new).decode(), step_1='{"$kept":"kept/1-2"}')
    first, second, _ = await steps(ada, run_id)
    assert (first["started_ms"], first["duration_ms"], first["result"]) == (3, 4, None)
    assert first["kept"] == f"/agent/runs/{run_id}/steps/0"
    assert (second["started_ms"], second["duration_ms"]) == (None, None)
    assert second["kept"] == f"/agent/runs/{run_id}/steps/1"
    await worker.finish(lease)


async def test_the_results_of_a_long_list_are_bounded_and_the_rest_is_linked(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    plan = PLAN[:1] * 200
    run_id = await create(ada, plan=plan)
    lease = await worker.claim()
    for first in range(0, 200, 20):
        await emit(worker, lease, **{f"step_{n}": record(n, text="x" * 30_000) for n in range(first, first + 20)})
    await worker.finish(lease)
    answer = await ada.get(f"/agent/runs/{run_id}/steps")
    assert len(answer.content) < 1_200_000
    found = answer.json()["steps"]
    assert statuses(found) == ["succeeded"] * 200
    assert all((each["result"] is None) == (each["kept"] is not None) for each in found)
    assert found[30]["result"]["number"] == 30
    last = await ada.get(found[199]["kept"])
    assert last.json()["result"]["number"] == 199


async def test_one_step_is_returned_as_it_is_stored(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada, plan=PLAN)
    lease = await second_step_under_way(worker)
    answer = await ada.get(f"/agent/runs/{run_id}/steps/0")
    assert answer.status_code == 200
    assert answer.json() == {"tool": "message", "started_ms": 1, "duration_ms": 7, "result": {"number": 1}}
    for index in ("1", "2", "3", "999999999999999999999999"):
        answer = await ada.get(f"/agent/runs/{run_id}/steps/{index}")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:swissbrain:problem:file-not-found")
    assert (await ada.get(f"/agent/runs/{run_id}/steps/-1")).status_code == 404
    await worker.finish(lease)


async def test_a_damaged_step_is_a_problem_that_names_it(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada, plan=PLAN)
    lease = await worker.claim()
    await emit(worker, lease, step_0="{broken")
    await worker.finish(lease)
    answer = await ada.get(f"/agent/runs/{run_id}/steps/0")
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:swissbrain:problem:record-unreadable")
    assert "step 0" in answer.json()["detail"]


@pytest.mark.parametrize("index", ["9" * 100, "9" * 10_000, "-1", "x", ""])
async def test_an_index_that_no_step_has_is_not_found(ada: httpx.AsyncClient, index: str) -> None:
    assert (await ada.get(f"/agent/runs/{await create(ada)}/steps/{index}")).status_code == 404


async def test_steps_of_other_users_and_without_the_scope_are_refused(
    ada: httpx.AsyncClient, bob: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await create(ada, plan=PLAN)
    for path in (f"/agent/runs/{run_id}/steps", f"/agent/runs/{run_id}/steps/0"):
        assert (await bob.get(path)).status_code == 404
        assert (await ada.get(path, headers={"Authorization": "Bearer token-of-a-writer"})).status_code == 403


async def test_a_large_step_is_fetched_from_the_object_store(
    rest_settings: RedisRestSettings, workspaces: Workspaces, worker: SimulatedWorker
) -> None:
    async with serve(rest_settings, workspaces) as edge, client(edge, "ada") as ada, httpx.AsyncClient() as anyone:
        run_id = await create(ada, plan=PLAN)
        lease = await worker.claim()
        text = record(1, text="x" * 40_000)
        name = await workspaces.run("ada", run_id, lease.fence, {}).put_blob(text.encode())
        await emit(worker, lease, step_0=json.encode(BlobRef(name=name)).decode())
        await worker.finish(lease)
        href = (await steps(ada, run_id))[0]["kept"]
        answer = await ada.get(href)
        assert answer.status_code == 307
        assert answer.headers["cache-control"] == "no-store"
        assert (await anyone.get(answer.headers["location"])).text == text
        head = await ada.head(href)  # the store would refuse HEAD at a URL that is signed for GET
        assert (head.status_code, head.headers["content-type"]) == (200, "application/json")
        assert "content-length" not in head.headers
        assert (await ada.get("/health")).status_code == 200  # the connection is still usable
        async with client(edge, "bob") as bob:
            assert (await bob.get(href)).status_code == 404
