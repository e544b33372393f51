"""`POST /agent/runs/{run_id}/resume`: forms of answers, scopes, conflicts, and the inbox of waiting runs."""

from typing import Any

import httpx
import pytest

from infra.contract.queue import Lease
from infra.contract.requests import OpenRequest
from infra.contract.runs import PlanStep, RunSpec
from infra.contract.states import Status
from tests.edge.stack import Edge, SimulatedWorker, client, create
from tests.support.requests import approval, question


async def waiting(ada: httpx.AsyncClient, worker: SimulatedWorker, *requests: OpenRequest) -> str:
    run_id = await create(ada)
    await worker.wait(await worker.claim(), *requests)
    return run_id


async def resume(http: httpx.AsyncClient, run_id: str, **body: Any) -> httpx.Response:
    return await http.post(f"/agent/runs/{run_id}/resume", json=body)


async def test_the_short_forms_answer_the_only_open_request(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    asked = await waiting(ada, worker, question())
    assert (await resume(ada, asked, user_input="a")).json()["status"] == "queued"
    await worker.complete()
    approved = await waiting(ada, worker, approval())
    answer = await ada.post(
        "/agent/execute", json={"action": "resume", "run_id": approved, "approve": True, "comment": "fine"}
    )
    assert answer.json()["status"] == "queued"
    stored = (await worker.store.get(approved)).answers["a"]
    assert (stored.approve, stored.comment, stored.by) == (True, "fine", "ada")


async def test_answers_name_their_requests(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await waiting(ada, worker, question(), approval())
    short = await resume(ada, run_id, user_input="yes")
    assert short.status_code == 409
    assert short.json()["type"] == "urn:swissbrain:problem:request-not-open"
    assert short.json()["open_requests"] == ["q", "a"]
    assert "q, a" in short.json()["detail"]

    first = await resume(ada, run_id, answers={"q": {"input": "b"}})
    assert (first.status_code, first.json()["status"]) == (200, "waiting")
    again = await resume(ada, run_id, answers={"q": {"input": "c"}})
    assert (again.status_code, again.json()["open_requests"]) == (409, ["a"])
    other = await resume(ada, run_id, answers={"x": {"input": "c"}})
    assert (other.status_code, other.json()["run_status"]) == (409, "waiting")
    last = await resume(ada, run_id, answers={"a": {"approve": False}})
    assert last.json()["status"] == "queued"


@pytest.mark.parametrize("body", [{"user_input": "a"}, {"answers": {"q": {"input": "a"}}}])
async def test_a_repeated_answer_with_its_key_takes_effect_once(
    ada: httpx.AsyncClient, worker: SimulatedWorker, body: dict[str, Any]
) -> None:
    run_id = await waiting(ada, worker, question())
    for _ in range(2):
        answer = await ada.post(f"/agent/runs/{run_id}/resume", json=body, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    await worker.wait(await worker.claim(), question("q2"))
    answer = await ada.post(f"/agent/runs/{run_id}/resume", json=body, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["status"]) == (200, "waiting")
    assert (await resume(ada, run_id, answers={"q": {"input": "a"}})).status_code == 409


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "$"),
        ({"user_input": "a", "approve": True}, "$"),
        ({"user_input": "a", "comment": "b"}, "$.comment"),
        ({"answers": {}}, "$.answers"),
        ({"answers": {"q": {"input": "a"}}, "user_input": "a"}, "$.answers"),
        ({"answers": {"q": {}}}, "$.answers.q"),
        ({"answers": {"q": {"input": "a", "approve": True}}}, "$.answers.q"),
        ({"answers": {"q": {"approve": True}}}, "$.answers.q"),
        ({"answers": {"a": {"input": "yes"}}}, "$.answers.a"),
        ({"answers": {"q": {"input": "a" * 60_000}, "a": {"input": "a" * 60_000}}}, "$.answers"),
    ],
)
async def test_an_answer_that_does_not_fit_is_rejected_with_its_place(
    ada: httpx.AsyncClient, worker: SimulatedWorker, body: dict[str, Any], field: str
) -> None:
    run_id = await waiting(ada, worker, question(), approval())
    answer = await resume(ada, run_id, **body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_a_text_does_not_approve(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await waiting(ada, worker, approval())
    assert (await resume(ada, run_id, user_input="yes")).status_code == 422
    assert (await ada.get(f"/agent/runs/{run_id}")).json()["status"] == "waiting"


async def test_approvals_need_a_scope_of_their_own(edge: Edge, worker: SimulatedWorker) -> None:
    spec = RunSpec(plan=[PlanStep(tool="message", args={"text": "x"})])
    for user in ("writer", "approver", "reader"):
        await worker.store.create(f"run_{user}", user, spec, start=True, digest="d")
        await worker.wait(await worker.claim(), question(), approval())
    answers = {"q": {"input": "a"}, "a": {"approve": True}}
    for user, missing in (("writer", {"a": "runs:approve"}), ("approver", {"q": "runs:write"})):
        async with client(edge, user) as http:
            for name, answer in answers.items():
                reply = await resume(http, f"run_{user}", answers={name: answer})
                assert reply.status_code == (403 if name in missing else 200)
                if name in missing:
                    assert missing[name] in reply.json()["detail"]
            assert (await resume(http, f"run_{user}", answers=answers)).status_code == 403
    async with client(edge, "reader") as http:
        assert (await resume(http, "run_reader", answers={"q": {"input": "a"}})).status_code == 403


async def test_waiting_runs_are_listed_with_their_open_requests(
    ada: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    run_id = await waiting(ada, worker, question(), approval())
    await create(ada)
    (listed,) = (await ada.get("/agent/runs", params={"status": "waiting"})).json()["runs"]
    shown = (await ada.get(f"/agent/runs/{run_id}")).json()
    assert listed["run_id"] == run_id
    assert listed["waiting"] == shown["waiting"]
    assert [each["id"] for each in shown["waiting"]["requests"]] == ["q", "a"]
    assert shown["waiting"]["requests"][1]["args"]["empty"] == []
    assert shown["waiting"]["since_ms"] > 0
    await ada.post(f"/agent/runs/{run_id}/cancel")
    assert (await ada.get(f"/agent/runs/{run_id}")).json()["waiting"] is None


@pytest.mark.parametrize("endpoint", ["resource", "execute"])
async def test_messages_and_interrupts_reach_the_run(
    ada: httpx.AsyncClient, worker: SimulatedWorker, endpoint: str
) -> None:
    run_id = (await ada.post("/agent/runs", json={"prompt": "x"})).json()["run_id"]

    async def act(action: str, **fields: Any) -> httpx.Response:
        if endpoint == "execute":
            return await ada.post("/agent/execute", json={"action": action, "run_id": run_id, **fields})
        path = {"message": "messages"}.get(action, action)
        return await ada.post(f"/agent/runs/{run_id}/{path}", json=fields)

    sent = await act("message", text="hurry")
    assert (sent.status_code, sent.json()["status"]) == (200, "queued")
    assert (await act("interrupt")).json()["status"] == "queued"
    (claim,) = (await worker.store.claim("w", 1, lease_ms=60_000)).claims
    assert ([message.text for message in claim.messages], claim.run.interrupt) == (["hurry"], True)
    for bad in ({}, {"text": ""}, {"text": "x" * 8001}):
        assert (await act("message", **bad)).status_code == 422
    await ada.post(f"/agent/runs/{run_id}/cancel")
    await worker.finish(Lease(run_id, claim.run.fence), Status.CANCELLED)
    for answer in (await act("message", text="late"), await act("interrupt")):
        assert (answer.status_code, answer.json()["run_status"]) == (409, "cancelled")


async def test_a_run_with_a_plan_takes_no_message_and_no_interrupt(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada)
    for path, body in (("messages", {"text": "x"}), ("interrupt", {})):
        answer = await ada.post(f"/agent/runs/{run_id}/{path}", json=body)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:swissbrain:problem:transition-refused")
        assert "explicit plan" in answer.json()["detail"]


async def test_too_many_messages_are_refused_with_the_limit(ada: httpx.AsyncClient) -> None:
    run_id = (await ada.post("/agent/runs", json={"prompt": "x"})).json()["run_id"]
    for _ in range(50):
        assert (await ada.post(f"/agent/runs/{run_id}/messages", json={"text": "x"})).status_code == 200
    answer = await ada.post(f"/agent/runs/{run_id}/messages", json={"text": "x"})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:swissbrain:problem:limit-exceeded")
