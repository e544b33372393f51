"""Bad input: each error has its status and its field, and nothing is created."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from msgspec import json
from starlette.requests import Request

from edge_api.http.cursor import decode_cursor, encode_cursor
from edge_api.http.errors import BadCursor
from edge_api.http.parsing import read_query
from edge_api.http.request_models import FileQuery
from infra.contract.errors import InvalidInput
from infra.contract.runs import MAX_PLAN_STEPS
from tests.edge.stack import PLAN, Edge, SimulatedWorker, create

STEP = PLAN["plan"][0]
JSON = {"Content-Type": "application/json"}
DEEP = b'{"plan":[{"tool":"message","args":{"text":' + b"[" * 50_000 + b"]" * 50_000 + b"}}]}"


def plan(tool: str, **args: Any) -> dict[str, Any]:
    return {"plan": [STEP, {"tool": tool, "args": args}]}


async def refused(
    http: httpx.AsyncClient, worker: SimulatedWorker, status: int, field: str | None, **request: Any
) -> dict[str, Any]:
    """Return the problem of a rejected request. Both endpoints must return the same, and nothing may be written."""
    answer = await http.request(request.pop("method", "POST"), request.pop("url", "/agent/runs"), **request)
    problem: dict[str, Any] = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["type"].startswith("urn:swissbrain:problem:")
    assert problem.get("field") == field, problem
    assert await worker.size() == 0
    return problem


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, b"", JSON),
        (400, b"  \n", JSON),
        (400, b"", {}),
        (400, b"plan", JSON),
        (400, b'{"prompt": "x"', JSON),
        (400, b'{"prompt": "x"} {}', JSON),
        (400, b'{"prompt": "\xff"}', JSON),
        (400, b'{"prompt": "\\ud800"}', JSON),
        (400, DEEP, JSON),
        (415, b'{"prompt": "x"}', {"Content-Type": "text/plain"}),
        (415, b"prompt=x", {"Content-Type": "application/x-www-form-urlencoded"}),
        (413, b'{"prompt": "' + b"x" * 2_000_000 + b'"}', JSON),
    ],
)
@pytest.mark.parametrize("url", ["/agent/runs", "/agent/execute"])
async def test_unreadable_bodies_are_rejected(
    ada: httpx.AsyncClient, worker: SimulatedWorker, url: str, status: int, body: bytes, headers: dict[str, str]
) -> None:
    content = body.replace(b"{", b'{"action":"create",', 1) if url == "/agent/execute" else body
    await refused(ada, worker, status, None, url=url, content=content, headers=headers)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "$"),
        (None, "$"),
        ({}, "$"),
        ({"start": True}, "$"),
        ({"prompt": 1}, "$.prompt"),
        ({"prompt": ""}, "$.prompt"),
        ({"prompt": "x" * 100_001}, "$.prompt"),
        ({"plan": {}}, "$.plan"),
        ({"plan": []}, "$.plan"),
        ({"plan": [{}]}, "$.plan[0].tool"),
        ({"plan": [STEP, {**STEP, "when": 1}]}, "$.plan[1].when"),
        ({"plan": [STEP] * 10_000}, "$.plan"),
        (plan("teleport"), "$.plan[1].tool"),
        (plan("message"), "$.plan[1].args.text"),
        (plan("message", text=1), "$.plan[1].args.text"),
        (plan("message", text="x", loud=True), "$.plan[1].args.loud"),
        (plan("file_read", path="../x"), "$.plan[1].args.path"),
        (plan("file_write", path="/etc/passwd", content=""), "$.plan[1].args.path"),
        (plan("file_write", path=".run/x", content=""), "$.plan[1].args.path"),
        (plan("file_delete", path="a\\b"), "$.plan[1].args.path"),
        (plan("code", language="cobol", source="x"), "$.plan[1].args.language"),
        (plan("shell", command="x", timeout_s=0), "$.plan[1].args.timeout_s"),
        ({**PLAN, "priority": 9}, "$.priority"),
        ({**PLAN, "priority": "high"}, "$.priority"),
        ({**PLAN, "max_attempts": 0}, "$.max_attempts"),
        ({**PLAN, "timeout_s": -1}, "$.timeout_s"),
        ({**PLAN, "metadata": {"a": 1}}, "$.metadata[...]"),
        ({**PLAN, "metadata": {"": "x"}}, "$.metadata"),
        ({**PLAN, "metadata": {str(n): "x" for n in range(51)}}, "$.metadata"),
        ({**PLAN, "start": "yes"}, "$.start"),
        ({**PLAN, "delay_s": -1}, "$.delay_s"),
        ({**PLAN, "delay_s": 2_592_001}, "$.delay_s"),
        ({**PLAN, "delay_s": 1, "start_at_ms": 5}, "$.start_at_ms"),
        ({**PLAN, "start_at_ms": "2027-01-01"}, "$.start_at_ms"),
        ({**PLAN, "queue_ttl_s": 0}, "$.queue_ttl_s"),
        ({"plan": [{**STEP, "timeout_s": 0}]}, "$.plan[0].timeout_s"),
        ({**PLAN, "model": "small"}, "$.model"),
        ({"prompt": "x", "instructions": ""}, "$.instructions"),
        ({"prompt": "x", "tools": ["no such tool!"]}, "$.tools[0]"),
        ({"prompt": "x", "limits": {"turns": 201}}, "$.limits.turns"),
        ({"prompt": "x", "limits": {"steps": 1}}, "$.limits.steps"),
        ({"prompt": "x", "approvals": [{"tool": "shell", "policy": "maybe"}]}, "$.approvals[0].policy"),
        ({"prompt": "x", "approvals": [{"tool": "*", "policy": "ask"}] * 51}, "$.approvals"),
        ({"prompt": "x", "output_schema": {"title": "x" * 33_000}}, "$.output_schema"),
        ({"prompt": "x", "output_schema": {"type": "objekt"}}, "$.output_schema.type"),
        ({"prompt": " \n\t"}, "$.prompt"),
        ({**PLAN, "prompt": " "}, "$.prompt"),
        ({**PLAN, "urgent": True}, "$.urgent"),
    ],
)
async def test_invalid_bodies_are_rejected_by_field(
    ada: httpx.AsyncClient, worker: SimulatedWorker, body: Any, field: str
) -> None:
    content = json.encode(body)
    problem = await refused(ada, worker, 422, field, content=content, headers=JSON)
    if isinstance(body, dict) and "start" not in body:
        content = json.encode({"action": "create", **body})
        same = await refused(ada, worker, 422, field, url="/agent/execute", content=content, headers=JSON)
        if field != "$.urgent":
            assert same == problem


@pytest.mark.parametrize(
    ("url", "body", "detail"),
    [
        (
            "/agent/runs",
            {**PLAN, "urgent": True},
            (
                "Object contains unknown field `urgent`; allowed are model, instructions, tools, approvals, limits,"
                " output_schema, strict_plan, stream, continue_of, prompt, plan, priority, max_attempts, timeout_s,"
                " metadata, delay_s, start_at_ms, queue_ttl_s, fork_of,"
                " webhook_url, webhook_events, start"
            ),
        ),
        (
            "/agent/runs",
            {"plan": [{**STEP, "when": 1}]},
            "Object contains unknown field `when`; allowed are tool, args, timeout_s, name",
        ),
        (
            "/agent/runs",
            plan("code", language="cobol", source="x"),
            "Invalid enum value 'cobol'; allowed are bash, node, python",
        ),
        (
            "/agent/execute",
            {"action": "go"},
            "Invalid value 'go'; allowed are create, start, stop, retry, resume, message, interrupt",
        ),
    ],
)
async def test_error_messages_state_the_allowed_values(
    ada: httpx.AsyncClient, worker: SimulatedWorker, url: str, body: dict[str, Any], detail: str
) -> None:
    response = await ada.post(url, json=body)
    assert response.status_code == 422
    assert response.json()["detail"] == detail


async def test_the_limit_of_a_plan_is_stated(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    problem = await refused(ada, worker, 422, "$.plan", json={"plan": [STEP] * (MAX_PLAN_STEPS + 1)})
    assert str(MAX_PLAN_STEPS) in problem["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "$.action"),
        ({"action": "explode"}, "$.action"),
        ({"action": 1}, "$.action"),
        ({"action": "create", "prompt": "x", "run_id": "run_1"}, "$.run_id"),
        ({"action": "create", "prompt": "x", "start": True}, "$.start"),
        ({"action": "start"}, "$.run_id"),
        ({"action": "start", "run_id": 5}, "$.run_id"),
        ({"action": "start", "run_id": "run_1", "prompt": "x"}, "$.prompt"),
        ({"action": "stop", "run_id": "run_1", "user_input": "x"}, "$.user_input"),
        ({"action": "resume", "run_id": "run_1"}, "$"),
        ({"action": "retry", "run_id": ""}, "$.run_id"),
    ],
)
async def test_invalid_actions_are_rejected(
    ada: httpx.AsyncClient, worker: SimulatedWorker, body: Any, field: str
) -> None:
    await refused(ada, worker, 422, field, url="/agent/execute", json=body)


async def test_a_body_without_a_length_is_bounded(ada: httpx.AsyncClient, edge: Edge, worker: SimulatedWorker) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(40):
            yield b"x" * 65_536

    await refused(ada, worker, 413, None, content=endless(), headers=JSON)
    too_long = f"POST /agent/runs HTTP/1.1\r\nHost: x\r\nAuthorization: {ada.headers['authorization']}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(edge.url.rsplit(":", 1)[1]))
    writer.write(f"{too_long}Content-Length: 10000000000\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()
    await writer.wait_closed()
    assert await worker.size() == 0


def test_a_query_of_many_parameters_is_checked_in_linear_time() -> None:
    query = "&".join([*(f"{number:x}" for number in range(15_000)), "last", "last"])
    request = Request({"type": "http", "query_string": query.encode()})
    before = time.thread_time()
    with pytest.raises(InvalidInput, match="given twice") as caught:
        read_query(request, FileQuery)
    assert caught.value.field == "last"
    assert time.thread_time() - before < 2


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é"])
async def test_invalid_idempotency_keys_are_rejected(ada: httpx.AsyncClient, worker: SimulatedWorker, key: str) -> None:
    await refused(ada, worker, 422, "Idempotency-Key", json=PLAN, headers={"Idempotency-Key": key.encode("latin-1")})


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("status=done", "status"),
        ("stauts=failed", "stauts"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_invalid_queries_are_rejected(
    ada: httpx.AsyncClient, worker: SimulatedWorker, query: str, field: str
) -> None:
    await refused(ada, worker, 422, field, method="GET", url=f"/agent/runs?{query}")


async def test_invalid_log_positions_are_rejected(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada, start=False)
    logs, keys = f"/agent/logs/{run_id}", await worker.size()
    for url in (f"{logs}?after=-1", f"{logs}/stream?after=x", f"{logs}?after=99999999999999999999"):
        answer = await ada.get(url)
        assert (answer.status_code, answer.json()["field"]) == (422, "after")
    for text in ("x", "-1", "1.5", "9" * 17):
        answer = await ada.get(f"{logs}/stream", headers={"Last-Event-ID": text})
        assert (answer.status_code, answer.json()["field"]) == (422, "Last-Event-ID")
    assert await worker.size() == keys


async def test_actions_without_a_body_reject_fields(ada: httpx.AsyncClient) -> None:
    run_id = await create(ada, start=False)
    answer = await ada.post(f"/agent/runs/{run_id}/start", json={"priority": 1})
    assert (answer.status_code, answer.json()["field"]) == (422, "$.priority")
    assert (await ada.post(f"/agent/runs/{run_id}/start", content=b"{")).status_code == 400
    assert (await ada.get(f"/agent/runs/{run_id}")).json()["status"] == "created"


async def test_a_modified_cursor_is_rejected(ada: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    for _ in range(3):
        await create(ada)
    cursor = (await ada.get("/agent/runs?limit=2")).json()["next_cursor"]
    assert (await ada.get("/agent/runs", params={"cursor": cursor})).status_code == 200
    bad = [cursor[:-1], f"{cursor}A", cursor.swapcase(), "e30", "", "🦊", f" {cursor}", f"{cursor}=", "AAAAAAAAW10"]
    bad += [cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in range(len(cursor))]
    for text in bad:
        answer = await ada.get("/agent/runs", params={"cursor": text})
        assert (answer.status_code, answer.json()["field"]) == (400, "cursor"), text
    assert (await bob.get("/agent/runs", params={"cursor": cursor})).status_code == 400


def test_a_cursor_decodes_to_the_encoded_position() -> None:
    position = (1_700_000_000_000, "run_1")
    assert decode_cursor(encode_cursor(position, "ada"), "ada") == position
    with pytest.raises(BadCursor):
        decode_cursor(encode_cursor(position, "ada"), "bob")


async def test_an_unknown_path_gets_404_and_an_unknown_method_405(ada: httpx.AsyncClient) -> None:
    for method, url, status in (("GET", "/nothing", 404), ("GET", "/agent/runs/", 404), ("PUT", "/agent/runs", 405)):
        answer = await ada.request(method, url)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "about:blank"
        if status == 405:
            assert sorted(answer.headers["allow"].split(", ")) == ["GET", "HEAD", "POST"]


async def test_a_line_feed_at_the_end_of_a_path_is_part_of_it(ada: httpx.AsyncClient, edge: Edge) -> None:
    run_id = await create(ada, start=False)
    paths = ["/health", "/ready", "/openapi.json", "/agent/runs", "/agent/queue", f"/agent/runs/{run_id}"]
    paths += [f"/agent/runs/{run_id}/files", f"/agent/logs/{run_id}", f"/agent/logs/{run_id}/stream"]
    for path in paths:
        for end in ("%0a", "%0A", "%0d%0a", "%0a%0a"):
            assert (await ada.get(path + end)).status_code == 404, path
    for action in ("start%0a", "cancel%0a"):
        assert (await ada.post(f"/agent/runs/{run_id}/{action}")).status_code == 404
    assert (await ada.get(f"/agent/runs/{run_id}/files/a%0a")).status_code in {404, 422}
    assert (await ada.delete(f"/agent/runs/{run_id}%0a")).status_code == 404
    assert (await ada.get(f"/agent/runs/{run_id}")).json()["status"] == "created"
