"""The streaming loop, with a Runtime API that is strict and that fails."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from edge_api.lambda_stream.runtime_api import RuntimeApi
from tests.lambdas.call import Call
from tests.lambdas.conftest import STREAMING, Start
from tests.lambdas.environment import Environment
from tests.lambdas.events import function_url_event, http_api_event, load_balancer_event, rest_event
from tests.lambdas.runtime_api import RuntimeApi as StandIn

PROGRAM = [sys.executable, "-m", "tests.lambdas.program"]


def get(path: str) -> dict[str, Any]:
    return function_url_event("GET", path, {})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(start: Start) -> AsyncIterator[Environment]:
    async with start(PROGRAM) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def function(shared: Environment) -> AsyncIterator[Environment]:
    """The test program, which must be ready for further invocations after each test."""
    yield shared
    call = await shared.invoke(get("/"))
    assert await call.ended() == "answered"
    assert shared.starts == 1


async def test_status_headers_and_cookies_arrive_at_the_client(function: Environment) -> None:
    call = await function.invoke(get("/"))
    head, body = await call.complete()
    assert head == {
        "statusCode": 200,
        "headers": {"vary": "Origin, Accept", "content-type": "text/plain"},
        "cookies": ["a=1", "b=2"],
    }
    assert body.decode() == f"GET Root=1-{call.id[:8]} "


async def test_the_response_to_head_has_no_body(function: Environment) -> None:
    call = await function.invoke(function_url_event("HEAD", "/", {}))
    head, body = await call.complete()
    assert (head["statusCode"], body, call.outcome) == (200, b"", "answered")


async def test_requests_come_from_function_urls_and_from_rest_apis(function: Environment) -> None:
    headers = {"content-type": "application/octet-stream"}
    for event in (
        function_url_event("POST", "/", {}, b"body"),
        function_url_event("POST", "/", headers, b"body"),
        rest_event("POST", "/", {}, b"body"),
    ):
        call = await function.invoke(event)
        _, body = await call.complete()
        assert body.decode() == f"POST Root=1-{call.id[:8]} body"


async def test_an_error_before_the_first_byte_is_a_problem(function: Environment) -> None:
    for path in ("/raise", "/nothing"):
        call = await function.invoke(get(path))
        head, body = await call.complete()
        assert (head["statusCode"], head["headers"]["content-type"]) == (500, "application/problem+json")
        assert json.loads(body)["type"] == "urn:swissbrain:problem:internal"
        assert call.outcome == "answered"


async def test_an_error_after_the_first_byte_is_reported_in_the_trailers(function: Environment) -> None:
    for path, error in (("/fail", "RuntimeError"), ("/half", "Incomplete")):
        call = await function.invoke(get(path))
        _, body = await call.complete()
        assert body.startswith(b"GET ")
        assert call.outcome == "failed"
        assert call.error
        assert call.error["errorType"] == error


async def test_the_application_gets_a_disconnect_before_the_deadline(function: Environment) -> None:
    call = await function.invoke(get("/slow"), timeout_s=3)
    _, body = await call.complete()
    assert body.endswith(b" left")
    assert call.outcome == "answered"


async def test_an_application_that_does_not_end_is_cancelled_before_the_deadline(function: Environment) -> None:
    call = await function.invoke(get("/deaf"), timeout_s=3)
    head, body = await call.complete()
    assert (head["statusCode"], call.outcome) == (504, "answered")
    assert json.loads(body)["type"] == "urn:swissbrain:problem:out-of-time"


async def test_events_that_are_not_requests_get_an_immediate_response(function: Environment) -> None:
    events: list[object] = [{"source": "aws.events"}, {}, [], None, "warm"]
    for event in events:
        call = await function.invoke(event)
        assert await call.head() == {"warm": True}


async def test_a_request_that_cannot_be_read_is_no_error_of_the_function(function: Environment) -> None:
    events: list[object] = [{"requestContext": {}}, {"version": "2.0", "requestContext": {"http": {}}}]
    events.append({**get("/"), "headers": {"x": None}})
    for event in events:
        call = await function.invoke(event)
        head, body = await call.complete()
        assert (head["statusCode"], head["headers"]["content-type"]) == (400, "application/problem+json")
        assert json.loads(body)["type"] == "urn:swissbrain:problem:bad-request"
        assert call.outcome == "answered"


async def test_requests_come_through_every_service_and_with_any_host(function: Environment) -> None:
    for host in ("[2001:db8::7]", "${ip}:${port}", "api.example:"):
        for event in (
            http_api_event("GET", "/", {"host": host}, "prod"),
            load_balancer_event("GET", "/", {"host": host}),
        ):
            head, _ = await (await function.invoke({**event, "headers": {**event["headers"], "host": host}})).complete()
            assert head["statusCode"] == 200


async def test_one_connection_serves_all_invocations(function: Environment) -> None:
    await (await function.invoke(get("/"))).ended()
    before = function.api.connections
    for path in ("/", "/raise", "/fail", "/"):
        await (await function.invoke(get(path))).ended()
    assert function.api.connections == before


async def test_a_response_that_breaks_off_ends_the_application(function: Environment) -> None:
    function.api.break_after = 5
    call = await function.invoke(get("/endless"))
    assert await call.ended() == "broken"
    await function.wait_frozen()
    assert f'"action":"lambda.lost","invocation":"{call.id}"' in function.log()


async def test_a_connection_that_was_closed_while_idle_is_replaced(function: Environment) -> None:
    await (await function.invoke(get("/"))).ended()
    await function.wait_frozen()
    before = function.api.connections
    function.api.drop_idle()
    await function.wait_frozen()
    assert function.api.connections == before + 1


async def test_the_loop_continues_after_a_rejected_response(function: Environment) -> None:
    function.api.refuse_with = 410
    call = await function.invoke(get("/"))
    assert await call.ended() == "broken"
    await function.wait_frozen()
    assert '"lambda.refused"' in function.log()


async def test_the_loop_ends_when_the_runtime_api_fails(start: Start) -> None:
    async with start(STREAMING) as made:
        await (await made.invoke({})).ended()
        made.api.refuse_with = 500
        call = await made.invoke({})
        assert await call.ended() == "broken"
        assert await made.exited() == 1
    async with start(STREAMING) as made:
        await (await made.invoke({})).ended()
        await made.wait_frozen()
        await made.api.stop()
        made.thaw()
        assert await made.exited() == 1
        assert '"lambda.ended"' in made.log()


async def test_a_function_that_cannot_start_reports_the_reason(start: Start) -> None:
    async with start(STREAMING, UPSTASH_REDIS_REST_TOKEN="") as made:
        await made.start()
        assert await made.exited() == 1
        assert made.api.init_error == {
            "errorType": "SettingsError",
            "errorMessage": "UPSTASH_REDIS_REST_TOKEN is not set",
            "stackTrace": [],
        }


def test_a_start_outside_lambda_is_a_one_line_error(variables: dict[str, str]) -> None:
    command = [sys.executable, "-m", "edge_api.lambda_stream"]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "AWS_LAMBDA_RUNTIME_API is not set; this program is started by AWS Lambda, which sets it\n"


class Nobody:
    """There is no process to freeze or to kill."""

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def begin(self, call: Call) -> None: ...


async def test_a_response_waits_for_lambda_to_take_it() -> None:
    server = StandIn(Nobody())
    await server.start()
    api = RuntimeApi(server.address)
    call = Call(b"{}", 60)
    server.put(call)
    server.reading.clear()

    async def answer() -> None:
        invocation = await api.next()
        async with api.streaming(invocation, "application/vnd.awslambda.http-integration-response") as reply:
            await reply.write(b"{}" + bytes(8))
            for _ in range(32):
                await reply.write(bytes(1024 * 1024))
            await reply.end()

    answering = asyncio.create_task(answer())
    assert await call.begun()
    done, _ = await asyncio.wait({answering}, timeout=0.3)
    assert not done
    server.reading.set()
    await answering
    api.close()
    assert len(call.body) == 10 + 32 * 1024 * 1024
    await server.stop()
