"""The Lambda function, called with the events that AWS sends."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette

from edge_api import handler as root
from infra.contract.errors import ContractError
from infra.contract.redis import Argument, Reply
from infra.redis_rest import RedisRest
from infra.settings import RedisRestSettings
from tests.edge.api_process import ENV, TOKEN
from tests.edge.stack import PLAN
from tests.lambdas.events import function_url_event, http_api_event
from tests.support.waiting import wait_until

subscribe = RedisRest.subscribe
send = RedisRest._send
QUIET = "retry: 1000\n: ping\n"
Invoke = Callable[[Mapping[str, Any]], dict[str, Any]]


@pytest.fixture
def invoke(rest_settings: RedisRestSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """The function after a cold start: its environment, and a thread without an event loop."""
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UPSTASH_REDIS_REST_URL", rest_settings.url)
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", rest_settings.token)
    monkeypatch.setenv("EDGE_STREAM_HOLD_S", "0.2")
    monkeypatch.setattr(root, "configure", lambda: None)
    root._mangum.cache_clear()
    with ThreadPoolExecutor(1) as thread:
        yield lambda event: thread.submit(answer, event).result()
        thread.submit(close).result()
    root._mangum.cache_clear()


def answer(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the function's response. Its loop stops after that, so no task may remain in it."""
    answered = root.handler(event, None)
    assert asyncio.all_tasks(root._loop()) == set()
    return answered


def close() -> None:
    """Close the function's clients. Lambda itself never ends a process in order."""
    app = root._mangum().app
    assert isinstance(app, Starlette)

    async def shut() -> None:
        async with app.router.lifespan_context(app):
            pass

    root._loop().run_until_complete(shut())
    root._loop().close()
    root._loop.cache_clear()


def call(invoke: Invoke, method: str, path: str, body: Any = None, *, encoded: bool = False) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    event = function_url_event(method, path, headers, b"" if body is None else json.dumps(body).encode())
    if encoded:
        event |= {"body": base64.b64encode(event["body"].encode()).decode(), "isBase64Encoded": True}
    return invoke(event)


def test_requests_of_a_warm_function_share_its_clients(invoke: Invoke) -> None:
    for encoded in (False, True):
        created = call(invoke, "POST", "/agent/execute", {"action": "create", **PLAN}, encoded=encoded)
        assert (created["statusCode"], created["isBase64Encoded"]) == (201, False)
        run = json.loads(created["body"])
        shown = call(invoke, "GET", f"/agent/runs/{run['run_id']}")
        assert (shown["statusCode"], json.loads(shown["body"])) == (200, run)
        assert call(invoke, "DELETE", f"/agent/runs/{run['run_id']}/nothing")["statusCode"] == 404


def test_other_code_may_replace_the_event_loop_of_the_thread(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = root.handler

    def handle_after_other_code(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        asyncio.run(asyncio.sleep(0))  # as an extension may; the thread has no loop after that
        return handler(event, context)

    monkeypatch.setattr(root, "handler", handle_after_other_code)
    for _ in range(2):
        assert call(invoke, "GET", "/agent/runs")["statusCode"] == 200


def test_a_location_leads_to_the_created_run_below_the_stage(invoke: Invoke) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    created = invoke(http_api_event("POST", "/agent/runs", headers, "prod", json.dumps(PLAN).encode()))
    location = created["headers"]["location"]
    assert location == f"/prod{json.loads(created['body'])['links']['self']}"
    assert invoke(http_api_event("GET", location.removeprefix("/prod"), headers, "prod"))["statusCode"] == 200


def test_problem_responses_are_sent_as_text(invoke: Invoke) -> None:
    answer = call(invoke, "POST", "/agent/runs", {"prompt": 1})
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (422, False)
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert json.loads(answer["body"])["field"] == "$.prompt"


def test_the_response_to_head_has_no_body(invoke: Invoke) -> None:
    shown, head = (call(invoke, method, "/health") for method in ("GET", "HEAD"))
    assert (head["statusCode"], head["body"], head["isBase64Encoded"]) == (200, "", False)
    assert head["headers"]["content-length"] == str(len(shown["body"]))


def test_a_stream_is_held_no_longer_than_its_bound(invoke: Invoke) -> None:
    run = json.loads(call(invoke, "POST", "/agent/runs", PLAN)["body"])
    answer = call(invoke, "GET", f"/agent/logs/{run['run_id']}/stream?after=0")
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, False)
    assert answer["body"].startswith("retry: 1000\n")


@asynccontextmanager
async def closing_slowly(self: RedisRest, channel: str) -> AsyncIterator[AsyncIterator[str]]:
    """Subscription that needs some iterations of the event loop to close, like a connection with TLS."""
    async with subscribe(self, channel) as messages:
        try:
            yield messages
        finally:
            for _ in range(20):
                await asyncio.sleep(0)


def test_a_poll_returns_the_stored_events(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RedisRest, "subscribe", closing_slowly)
    monkeypatch.setenv("EDGE_LOG_MODE", "longpoll")
    monkeypatch.setenv("EDGE_LONGPOLL_WAIT_S", "0.2")
    run = json.loads(call(invoke, "POST", "/agent/runs", PLAN)["body"])
    path = f"/agent/logs/{run['run_id']}/stream"
    answer = call(invoke, "GET", path)
    assert (answer["isBase64Encoded"], answer["body"]) == (False, QUIET)
    call(invoke, "POST", f"/agent/runs/{run['run_id']}/cancel")

    def answered() -> bool:
        """Poll once more. On a busy machine a poll may end before it has read anything."""
        nonlocal answer
        answer = call(invoke, "GET", path)
        return bool(answer["body"] != QUIET)

    wait_until(answered, "the log is read")
    assert answer["body"].startswith("retry: 100\nid: 1\n")
    assert "\nevent: end\n" in answer["body"]
    assert call(invoke, "GET", f"{path}?after=1")["statusCode"] == 204


def test_a_request_that_waits_for_a_run_leaves_no_task_and_no_subscription(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisRest, "subscribe", closing_slowly)
    run = json.loads(call(invoke, "POST", "/agent/runs", PLAN)["body"])
    path = f"/agent/runs/{run['run_id']}?wait=1"
    answer = call(invoke, "GET", path)
    assert (answer["statusCode"], json.loads(answer["body"])["status"]) == (200, "queued")
    call(invoke, "POST", f"/agent/runs/{run['run_id']}/cancel")
    assert json.loads(call(invoke, "GET", path)["body"])["status"] == "cancelled"


def test_a_poll_that_ends_before_redis_replies_leaves_no_request_open(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    async def slowly(self: RedisRest, commands: Sequence[Sequence[Argument]]) -> "Sequence[Reply | ContractError]":
        sent.extend(str(name) for name, *_ in commands)
        if sent[-1] == "XRANGE":
            await asyncio.sleep(60)
        return await send(self, commands)

    monkeypatch.setattr(RedisRest, "_send", slowly)
    monkeypatch.setenv("EDGE_LOG_MODE", "longpoll")
    monkeypatch.setenv("EDGE_LONGPOLL_WAIT_S", "0.2")
    run = json.loads(call(invoke, "POST", "/agent/runs", PLAN)["body"])
    answer = call(invoke, "GET", f"/agent/logs/{run['run_id']}/stream")
    assert answer["body"] == QUIET
    assert "XRANGE" in sent


def test_events_that_are_not_requests_get_the_warm_up_response(invoke: Invoke) -> None:
    for event in ({"source": "aws.events", "detail-type": "Scheduled Event"}, {"warmup": True}, {}):
        assert invoke(event) == {"warm": True}
