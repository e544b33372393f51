"""The Lambda function, called with the events that AWS sends."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.applications import Starlette

from edge_api import handler as root
from infra.settings import RedisRestSettings
from tests.edge.stack import PLAN
from tests.edge.test_process import ENV, TOKEN

Invoke = Callable[[Mapping[str, Any]], dict[str, Any]]


@pytest.fixture
def invoke(rest_settings: RedisRestSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """The function as after a cold start: its environment, and a thread that has no event loop yet."""
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UPSTASH_REDIS_REST_URL", rest_settings.url)
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", rest_settings.token)
    monkeypatch.setenv("EDGE_STREAM_HOLD_S", "0.2")
    monkeypatch.setattr(root, "configure", lambda: None)
    root._mangum.cache_clear()
    with ThreadPoolExecutor(1) as thread:
        yield lambda event: thread.submit(root.handler, event, None).result()
        thread.submit(close).result()
    root._mangum.cache_clear()


def close() -> None:
    """What Lambda never does: end the process in order."""
    app = root._mangum().app
    assert isinstance(app, Starlette)

    async def shut() -> None:
        async with app.router.lifespan_context(app):
            pass

    loop = asyncio.get_event_loop()
    loop.run_until_complete(shut())
    loop.close()


def function_url_event(method: str, path: str, body: str | None = None, *, encoded: bool = False) -> dict[str, Any]:
    """A request through a function URL or an HTTP API: payload format 2.0."""
    path, _, query = path.partition("?")
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"authorization": f"Bearer {TOKEN}", "content-type": "application/json", "host": "x.lambda-url.aws"},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "x",
            "domainName": "x.lambda-url.aws",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.1",
                "userAgent": "curl",
            },
            "requestId": "r",
            "routeKey": "$default",
            "stage": "$default",
            "timeEpoch": 1,
        },
        "body": base64.b64encode(body.encode()).decode() if encoded and body else body,
        "isBase64Encoded": encoded,
    }


def call(invoke: Invoke, method: str, path: str, body: Any = None, *, encoded: bool = False) -> dict[str, Any]:
    text = None if body is None else json.dumps(body)
    return invoke(function_url_event(method, path, text, encoded=encoded))


def test_requests_of_a_warm_function_share_its_clients(invoke: Invoke) -> None:
    for encoded in (False, True):
        created = call(invoke, "POST", "/agent/execute", {"action": "create", **PLAN}, encoded=encoded)
        assert (created["statusCode"], created["isBase64Encoded"]) == (201, False)
        run = json.loads(created["body"])
        shown = call(invoke, "GET", f"/agent/runs/{run['run_id']}")
        assert (shown["statusCode"], json.loads(shown["body"])) == (200, run)
        assert call(invoke, "DELETE", f"/agent/runs/{run['run_id']}/nothing")["statusCode"] == 404


def test_problems_are_text(invoke: Invoke) -> None:
    answer = call(invoke, "POST", "/agent/runs", {"prompt": 1})
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (422, False)
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert json.loads(answer["body"])["field"] == "$.prompt"


def test_a_stream_is_held_no_longer_than_its_bound(invoke: Invoke) -> None:
    run = json.loads(call(invoke, "POST", "/agent/runs", PLAN)["body"])
    answer = call(invoke, "GET", f"/agent/logs/{run['run_id']}/stream?after=0")
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, False)
    assert answer["body"].startswith("retry: 1000\n")


def test_events_that_are_no_requests_are_answered(invoke: Invoke) -> None:
    for event in ({"source": "aws.events", "detail-type": "Scheduled Event"}, {"warmup": True}, {}):
        assert invoke(event) == {"warm": True}
