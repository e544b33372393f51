"""`POST /agent/runs/batch`: each run has its own key and its own result."""

import asyncio
from typing import Any

import httpx
import pytest

from edge_api.routes import batches
from infra.contract.redis_store.commands import RunCommands
from infra.contract.states import Status
from tests.edge.stack import PLAN, Files, SimulatedWorker, client, create, serve
from tests.support.own_gateway import Gateway

URL = "/agent/runs/batch"
KEY_REUSED = "urn:swissbrain:problem:idempotency-key-reused"
UNAVAILABLE = "urn:swissbrain:problem:store-unavailable"


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"number {number}", "idempotency_key": f"key-{number}"} for number in range(count)]


async def results(http: httpx.AsyncClient, runs: list[Any]) -> list[dict[str, Any]]:
    answer = await http.post(URL, json={"runs": runs})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    assert len(found) == len(runs)
    return found


def statuses(found: list[dict[str, Any]]) -> list[int]:
    return [result["status"] for result in found]


async def test_a_batch_creates_its_runs_in_order(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    found = await results(ada, [*numbered(99), {**PLAN, "start": False, "metadata": {"a": "b"}}])
    assert statuses(found) == [201] * 100
    for result in (found[0], found[-1]):
        assert result == {
            "status": 201,
            "run": (await ada.get(result["run"]["links"]["self"])).json() | {"queue": None},
        }
    assert [result["run"]["prompt"] for result in found[:99]] == [run["prompt"] for run in numbered(99)]
    assert found[-1]["run"]["status"] == "created"
    assert (await ada.get("/agent/queue")).json()["ready"] == 99
    claimed = (await worker.store.claim("w", 99, lease_ms=60_000)).claims
    assert [claim.run.id for claim in claimed] == [result["run"]["run_id"] for result in found[:99]]


async def test_a_batch_that_is_repeated_gives_the_same_runs(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    first = await results(ada, numbered(5))
    await worker.complete()
    await worker.complete(status=Status.FAILED)
    again = await results(ada, numbered(5))
    assert (statuses(first), statuses(again)) == ([201] * 5, [200] * 5)
    assert [one["run"]["run_id"] for one in first] == [one["run"]["run_id"] for one in again]
    assert [one["run"]["status"] for one in again] == ["succeeded", "failed", "queued", "queued", "queued"]
    # A hundred results could exceed the size of an answer.
    assert again[0]["run"]["result"] is None
    assert len((await ada.get("/agent/runs")).json()["runs"]) == 5


async def test_a_key_means_the_same_in_a_batch_and_as_a_header(ada: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    alone = await ada.post("/agent/runs", json={"prompt": "number 0"}, headers={"Idempotency-Key": "key-0"})
    (found,) = await results(ada, numbered(1))
    assert (found["status"], found["run"]) == (200, alone.json())
    assert statuses(await results(bob, numbered(1))) == [201]


async def test_a_bad_run_does_not_touch_the_others(ada: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    foreign = await create(bob)
    bad: list[tuple[Any, int, str | None]] = [
        ({}, 422, "$.runs[1]"),
        (5, 422, "$.runs[2]"),
        (None, 422, "$.runs[3]"),
        ({"prompt": "x", "prio": 1}, 422, "$.runs[4].prio"),
        ({"prompt": "x", "priority": 9}, 422, "$.runs[5].priority"),
        ({"plan": [PLAN["plan"][0], {"tool": "message", "args": {}}]}, 422, "$.runs[6].plan[1].args.text"),
        ({"plan": [{"tool": "none"}]}, 422, "$.runs[7].plan[0].tool"),
        ({"prompt": "x", "idempotency_key": "two words"}, 422, "$.runs[8].idempotency_key"),
        ({"prompt": "x", "idempotency_key": ""}, 422, "$.runs[9].idempotency_key"),
        ({**PLAN, "fork_of": {"run_id": foreign, "from_step": 0}}, 404, None),
        ({"prompt": "again", "idempotency_key": "good"}, 409, "$.runs[11].idempotency_key"),
    ]
    good = {"prompt": "x", "idempotency_key": "good"}
    found = await results(ada, [good, *(entry for entry, _, _ in bad), good])
    assert [found[0]["status"], found[-1]["status"]] == [201, 200]
    assert found[0]["run"] == found[-1]["run"]
    for (entry, status, field), result in zip(bad, found[1:-1], strict=True):
        assert (result["status"], result["problem"]["status"], result["problem"].get("field")) == (
            status,
            status,
            field,
        ), entry
        assert "run" not in result
        assert result["problem"]["detail"]
    assert found[11]["problem"]["type"] == KEY_REUSED
    assert len((await ada.get("/agent/runs")).json()["runs"]) == 1


@pytest.mark.parametrize(
    ("status", "body", "field"),
    [
        (422, {"runs": []}, "$.runs"),
        (422, {"runs": [{"prompt": "x"}] * 101}, "$.runs"),
        (422, {}, "$.runs"),
        (422, {"runs": [{"prompt": "x"}], "start": False}, "$.start"),
        (422, {"runs": {"prompt": "x"}}, "$.runs"),
        (413, {"runs": [{"prompt": "x" * 60_000}] * 20}, None),
    ],
)
async def test_a_bad_batch_is_rejected_as_a_whole(
    ada: httpx.AsyncClient, worker: SimulatedWorker, status: int, body: Any, field: str | None
) -> None:
    answer = await ada.post(URL, json=body)
    assert (answer.status_code, answer.json().get("field")) == (status, field)
    assert await worker.size() == 0


async def test_a_key_of_the_whole_batch_is_rejected(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    answer = await ada.post(URL, json={"runs": numbered(1)}, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")
    assert await worker.size() == 0


async def test_a_batch_needs_the_scopes_of_its_runs(
    ada: httpx.AsyncClient, running_edge: Any, worker: SimulatedWorker
) -> None:
    async with client(running_edge, "reader") as reader, client(running_edge, "writer") as writer:
        assert (await reader.post(URL, json={"runs": numbered(1)})).status_code == 403
        source = await create(writer)
        fork = {**PLAN, "fork_of": {"run_id": source, "from_step": 0}}
        found = await results(writer, [fork, *numbered(1)])
        assert statuses(found) == [403, 201]
        await worker.complete()
        await worker.complete(status=Status.FAILED)
        (again,) = await results(writer, numbered(1))
        assert (again["status"], again["run"]["status"], again["run"]["error"]) == (200, "failed", None)


async def test_an_outage_in_the_middle_leaves_a_batch_that_can_be_repeated(
    worker: SimulatedWorker, own_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = RunCommands.create, 0

    async def create_then_lose_redis(self: RunCommands, *args: Any, **more: Any) -> Any:
        nonlocal calls
        if (calls := calls + 1) == 4:
            await asyncio.to_thread(own_gateway.stop)
        return await original(self, *args, **more)

    async with serve(own_gateway.settings, Files()) as edge, client(edge, "ada") as http:
        monkeypatch.setattr(RunCommands, "create", create_then_lose_redis)
        found = await results(http, numbered(100))
        assert statuses(found) == [201] * 3 + [503] * 97
        assert {result["problem"]["type"] for result in found[3:]} == {UNAVAILABLE}
        # Only the first of the failed runs was tried, so the answer comes after one timeout of Redis at most.
        assert calls == 4
        await asyncio.to_thread(own_gateway.start)
        again = await results(http, numbered(100))
        assert statuses(again) == [200] * 3 + [201] * 97
        assert [one["run"]["run_id"] for one in again[:3]] == [one["run"]["run_id"] for one in found[:3]]
    assert (await worker.store.depths()).ready == 100


async def test_a_batch_ends_in_time(
    ada: httpx.AsyncClient, worker: SimulatedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = RunCommands.create, 0

    async def create_slowly(self: RunCommands, *args: Any, **more: Any) -> Any:
        nonlocal calls
        if (calls := calls + 1) == 3:
            await asyncio.sleep(60)
        return await original(self, *args, **more)

    monkeypatch.setattr(RunCommands, "create", create_slowly)
    monkeypatch.setattr(batches, "BATCH_S", 3.0)
    assert statuses(await results(ada, numbered(5))) == [201, 201, 503, 503, 503]
    assert (await worker.store.depths()).ready == 2


async def test_a_bug_that_one_run_meets_does_not_take_the_others_along(
    ada: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = RunCommands.create

    async def create_with_a_bug(self: RunCommands, run_id: str, user: str, spec: Any, **more: Any) -> Any:
        if spec.prompt == "number 1":
            raise KeyError("secret inside")
        return await original(self, run_id, user, spec, **more)

    monkeypatch.setattr(RunCommands, "create", create_with_a_bug)
    found = await results(ada, numbered(3))
    assert statuses(found) == [201, 500, 201]
    assert "secret inside" not in str(found)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
