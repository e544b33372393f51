"""Requests as the services in front of a Lambda function hand them over."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import pytest
from mangum import Mangum

from edge_api.handler import handler
from edge_api.http.base_path import BasePath
from edge_api.lambda_events import converted, normalized
from edge_api.settings import ApiSettings
from infra.settings import Env, SettingsError
from tests.lambdas.events import (
    function_url_event,
    http_api_event,
    http_api_v1_event,
    load_balancer_event,
    rest_event,
)

MakeEvent = Callable[[str, str, Mapping[str, str]], dict[str, Any]]
SERVICES: Mapping[str, MakeEvent] = {
    "function URL": function_url_event,
    "HTTP API": http_api_event,
    "HTTP API 1.0": http_api_v1_event,
    "REST API": rest_event,
    "load balancer": load_balancer_event,
}
NAMES = ["a b", "a%20b", "a%2520b", "a/c", "a%2Fc", "%41", "ä/中", "a+b", "a?b#c", "100%", "%", "%zz", "a%0ab"]


class _Adapter(Mangum):
    """Adapter that only converts events, and so needs no event loop."""

    def __init__(self) -> None:
        super().__init__(None, lifespan="off")  # type: ignore[arg-type]

    def _setup_event_loop(self) -> None:
        pass


def scope_of(event: Mapping[str, Any]) -> Any:
    """Return the ASGI scope that the application receives."""
    return _Adapter().infer(normalized(event), None).scope  # type: ignore[arg-type]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_decoded_once(service: str, name: str) -> None:
    event = SERVICES[service]("GET", f"/agent/runs/run_1/files/{quote(name)}?a=b", {})
    scope = scope_of(event)
    assert scope["path"] == f"/agent/runs/run_1/files/{name}"
    assert scope["query_string"] == b"a=b"
    assert scope["method"] == "GET"


@pytest.mark.parametrize("make", [http_api_event, http_api_v1_event])
@pytest.mark.parametrize(
    ("stage", "path", "expected"),
    [
        ("prod", "/health", "/health"),
        ("prod", "/agent/runs/a%2520b", "/agent/runs/a%20b"),
        ("prod", "/prod/health", "/prod/health"),
        ("prod", "", "/"),
        ("$default", "/prod/health", "/prod/health"),
    ],
)
def test_the_stage_of_an_http_api_is_removed_once(make: Any, stage: str, path: str, expected: str) -> None:
    assert scope_of(make("GET", path, {}, stage))["path"] == expected


@pytest.mark.parametrize("path", ["/production", "/prod.", "/health", "/PROD/health"])
def test_a_path_that_does_not_begin_with_the_stage_is_kept(path: str) -> None:
    event = http_api_event("GET", path, {})
    event["requestContext"]["stage"] = "prod"
    assert scope_of(event)["path"] == path


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", "[2001:db8::7]"),
        ("host", "[::ffff:a9fe:a9fe]:80"),
        ("host", "${ip}:${port}"),
        ("host", "api.example:"),
        ("host", "api.example:²"),
        ("host", "a:1:2"),
        ("host", ""),
        ("host", "[["),
        ("x-forwarded-port", "https"),
        ("x-forwarded-port", "443, 80"),
        ("x-forwarded-port", ""),
        ("x-forwarded-port", "-"),
        ("x-forwarded-port", "9" * 5000),
    ],
)
def test_junk_in_the_headers_of_the_server_does_not_matter(service: str, name: str, value: str) -> None:
    event = SERVICES[service]("GET", "/health", {})
    for field, junk in (("headers", value), ("multiValueHeaders", [value])):
        if event.get(field):
            kept = {key: each for key, each in event[field].items() if key.lower() != name}
            event[field] = {**kept, name.title(): junk}
    assert scope_of(event)["path"] == "/health"


def test_a_host_with_a_port_is_kept() -> None:
    scope = scope_of(load_balancer_event("GET", "/health", {"host": "api.example:8443"}))
    assert scope["server"] == ("api.example", 8443)
    assert [b"host", b"api.example:8443"] in scope["headers"]


def test_a_repeated_host_does_not_matter() -> None:
    event = rest_event("GET", "/health", {})
    event["multiValueHeaders"]["Host"] = ["a.example:1", "b.example:2"]
    assert scope_of(event)["path"] == "/health"


@pytest.mark.parametrize(
    "changes",
    [
        {"requestContext": None},
        {"requestContext": {}},
        {"headers": {"x": None}},
        {"headers": {"x": "\ud800"}},
        {"headers": "x"},
        {"body": "abc", "isBase64Encoded": True},
        {"body": "\ud800"},
        {"body": {"prompt": "x"}},
        {"requestContext": {"http": {"method": ["GET"], "path": "/", "sourceIp": ""}}},
    ],
)
def test_an_unreadable_request_is_no_error_of_the_function(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr("edge_api.handler._mangum", _Adapter)
    answer = handler({**function_url_event("GET", "/health", {}), **changes}, None)
    assert (answer["statusCode"], answer["headers"]["content-type"]) == (400, "application/problem+json")
    assert "malformed" in answer["body"]


@pytest.mark.parametrize(
    "event", [{"httpMethod": "GET", "path": "/health"}, {"rawPath": "/health"}, {"raw_path": "/", "method": "GET"}]
)
def test_a_request_of_another_service_is_no_warm_up(monkeypatch: pytest.MonkeyPatch, event: dict[str, Any]) -> None:
    monkeypatch.setattr("edge_api.handler._mangum", _Adapter)
    assert handler(event, None)["statusCode"] == 400


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/health", "/health"),
        ("/v1", "/"),
        ("/v1/", "/"),
        ("/v1/v1/health", "/v1/health"),
        ("/health", "/health"),
        ("/v10/health", "/v10/health"),
        ("/v1%2Fhealth", "/v1%2Fhealth"),
        ("/", "/"),
    ],
)
async def test_the_base_path_is_removed_where_it_is(path: str, expected: str) -> None:
    seen: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["path"])

    scope = {"type": "http", "path": path}
    await BasePath(app, "/v1")(scope, None, None)  # type: ignore[arg-type]
    assert seen == [expected]
    assert scope["path"] == path


@pytest.mark.parametrize(
    ("event", "stage"),
    [
        (rest_event("POST", "/agent/runs", {}), "/dev"),
        (rest_event("GET", "/", {}), "/dev"),
        (http_api_event("POST", "/agent/runs", {}, "prod"), "/prod"),
        (http_api_v1_event("POST", "/agent/runs", {}, "prod"), "/prod"),
        (http_api_event("POST", "/agent/runs", {}), ""),
        (http_api_v1_event("POST", "/agent/runs", {}), ""),
        (function_url_event("POST", "/agent/runs", {}), ""),
        (load_balancer_event("POST", "/agent/runs", {}), ""),
    ],
)
@pytest.mark.parametrize(
    ("base_path", "path", "before"), [("", "/agent/runs", ""), ("/v1", "/agent/runs", ""), ("/v1", "/v1/runs", "/v1")]
)
async def test_a_location_has_the_stage_and_the_base_path_of_the_request(
    event: dict[str, Any], stage: str, base_path: str, path: str, before: str
) -> None:
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"location", b"/agent/runs/run_1"), (b"x-path", b"/a")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.start", "status": 307, "headers": [(b"location", b"https://s3.example/a")]})

    async def send(message: Any) -> None:
        sent.extend(message["headers"])

    scope = {**converted(_Adapter(), event, None)[1], "path": path}
    await BasePath(app, base_path)(scope, None, send)  # type: ignore[arg-type]
    assert sent[0] == (b"location", f"{stage}{before}/agent/runs/run_1".encode())
    assert sent[1:] == [(b"x-path", b"/a"), (b"location", b"https://s3.example/a")]


@pytest.mark.parametrize("path", ["v1", "/v1//x", "/v 1", "/v1?x", "https://api.example/v1", "/é", "/v1\n/x"])
def test_a_base_path_of_another_form_is_rejected(path: str) -> None:
    with pytest.raises(SettingsError, match=r"^EDGE_BASE_PATH must be a path such as '/v1'"):
        ApiSettings.from_env(Env({"EDGE_BASE_PATH": path}))


@pytest.mark.parametrize(("text", "expected"), [("", ""), ("/", ""), ("/v1", "/v1"), ("/api/v1/", "/api/v1")])
def test_a_base_path_may_end_in_a_slash(text: str, expected: str) -> None:
    assert ApiSettings.from_env(Env({"EDGE_BASE_PATH": text})).base_path == expected
