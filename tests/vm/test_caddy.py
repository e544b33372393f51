"""The shipped Caddyfile in front of a scripted server: streams, lost clients, limits, addresses, and what is logged."""

import json
import os
import ssl
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from queue import SimpleQueue
from socketserver import StreamRequestHandler
from urllib.parse import urlsplit

import pytest

from edge_api.settings import ApiSettings
from infra.http_limits import HttpLimits
from tests.docs.pages import ROOT
from tests.support.redis import free_port
from tests.support.scripted_http import Wire, read_request, scripted_connections
from tests.support.waiting import wait_until

CADDYFILE = ROOT / "deploy" / "vm" / "Caddyfile"
CADDY = Path(sys.prefix) / "bin" / "caddy"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = "token-that-no-log-may-have"
LIMITS = HttpLimits(connections=1)


@dataclass
class Upstream:
    """Server in the place of the API. `/stream…` sends what is put into its `events`; other paths show the request."""

    port: int = 0
    events: defaultdict[str, SimpleQueue[str]] = field(default_factory=lambda: defaultdict(SimpleQueue))
    left: defaultdict[str, threading.Event] = field(default_factory=lambda: defaultdict(threading.Event))

    def handle(self, handler: StreamRequestHandler, ending: threading.Event) -> None:
        request = read_request(handler)
        if request is None:
            return
        wire = Wire(handler.connection, ending)
        if request.target.startswith("/silent"):
            wire.reset()
            return
        if not request.target.startswith(("/stream", "/broken")):
            seen = json.dumps({"headers": request.headers, "body": len(request.body)}).encode()
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(seen), seen))
            return
        wire.send(STREAM)
        if request.target.startswith("/broken"):
            wire.send(b"20\r\nsome")
            wire.reset()
            return
        while text := self.events[request.target].get():
            data = f"data: {text}\n\n".encode()
            wire.send(b"%x\r\n%s\r\n" % (len(data), data))
        wire.silence()
        if not ending.is_set():
            self.left[request.target].set()


@dataclass(frozen=True)
class Caddy:
    """Running Caddy: its ports, its upstream, the file of its log, and a context that trusts its certificate."""

    http_port: int
    https_port: int
    upstream: Upstream
    log: Path
    trust: ssl.SSLContext

    @contextmanager
    def get(
        self, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Iterator[HTTPResponse]:
        """Make a request; the connection is closed at the end of the block."""
        connection = HTTPSConnection("localhost", self.https_port, context=self.trust, timeout=30)
        try:
            connection.request("GET" if body is None else "POST", path, body, headers or {})
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()


@pytest.fixture(scope="module")
def caddy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caddy]:
    folder, upstream = tmp_path_factory.mktemp("caddy"), Upstream()
    http_port, https_port = free_port(), free_port()
    log = folder / "log"
    with scripted_connections(upstream.handle, waits_for_answers=True) as address:
        upstream.port = urlsplit(address).port or 0
        environment = variables(upstream.port) | {
            "HTTP_PORT": str(http_port),
            "HTTPS_PORT": str(https_port),
            "XDG_DATA_HOME": str(folder),
            "HOME": str(folder),
        }
        with started(environment, log):
            authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
            wait_until(lambda: "certificate obtained successfully" in log.read_text(), "Caddy has a certificate")
            yield Caddy(http_port, https_port, upstream, log, ssl.create_default_context(cafile=str(authority)))


@contextmanager
def started(environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run Caddy with the shipped file, from when it serves until the end of the block."""
    command: list[str | Path] = [CADDY, "run", "--config", CADDYFILE, "--adapter", "caddyfile"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env={"PATH": os.environ["PATH"], **environment}, stderr=file)
    try:
        wait_until(lambda: "serving initial configuration" in log.read_text() or process.poll(), "Caddy serves")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(20)


def variables(port: int) -> dict[str, str]:
    return {"SITE_ADDRESS": "localhost", "EDGE_PORT": str(port)}


def test_events_of_a_stream_arrive_one_by_one_while_it_goes_on(caddy: Caddy) -> None:
    events = caddy.upstream.events["/stream/live"]
    with caddy.get("/stream/live") as response:
        for text in ("first", "second"):
            events.put(text)
            assert response.readline() == f"data: {text}\n".encode()
            assert response.readline() == b"\n"
        events.put("")


def test_a_client_that_leaves_ends_its_request_to_the_api(caddy: Caddy) -> None:
    events, left = caddy.upstream.events["/stream/left"], caddy.upstream.left["/stream/left"]
    with caddy.get("/stream/left") as response:
        events.put("first")
        response.readline()
        events.put("")
        assert not left.wait(0.2)
    assert left.wait(20)


def test_nobody_can_forge_an_address(caddy: Caddy) -> None:
    forged = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
        "X-Real-IP": "203.0.113.7",
        "Forwarded": "for=203.0.113.7",
    }
    with caddy.get("/", forged) as response:
        seen = json.load(response)["headers"]
        assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert seen["x-forwarded-for"] in {"127.0.0.1", "::1"}
    assert seen["x-forwarded-proto"] == "https"
    assert seen["x-forwarded-host"] == f"localhost:{caddy.https_port}"
    assert {"x-real-ip", "forwarded"} & set(seen) == set()


def test_a_body_may_be_as_large_as_the_api_accepts_and_no_larger(caddy: Caddy) -> None:
    largest = ApiSettings().max_body_bytes
    with caddy.get("/", body=bytes(largest)) as response:
        assert json.load(response)["body"] == largest
    with caddy.get("/", body=bytes(largest + 1)) as response:
        assert response.status == 413
        assert response.headers["Content-Type"] == "application/problem+json"
        assert json.load(response)["status"] == 413


def test_a_head_that_the_api_would_reject_does_not_reach_it(caddy: Caddy) -> None:
    with caddy.get("/", {"X-Long": "x" * (2 * LIMITS.head_bytes)}) as response:
        assert response.status == 431


def test_an_api_that_does_not_answer_is_a_problem(caddy: Caddy) -> None:
    with caddy.get("/silent") as response:
        assert (response.status, response.headers["Content-Type"]) == (502, "application/problem+json")
        assert json.load(response)["title"] == "Bad Gateway"


def test_the_line_of_a_stream_that_breaks_off_has_no_token(caddy: Caddy) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with caddy.get(f"/broken?token={TOKEN}", headers) as response, pytest.raises(HTTPException):
        response.read()
    wait_until(lambda: "aborting with incomplete response" in caddy.log.read_text(), "Caddy has logged it")
    assert TOKEN not in caddy.log.read_text()


def test_plain_http_leads_to_https(caddy: Caddy) -> None:
    connection = HTTPConnection("localhost", caddy.http_port, timeout=30)
    connection.request("GET", "/agent/runs?limit=1")
    response = connection.getresponse()
    assert (response.status, response.headers["Location"]) == (308, "https://localhost/agent/runs?limit=1")
    connection.close()


def test_the_limits_are_those_of_the_api_and_nothing_cuts_a_stream() -> None:
    command: list[str | Path] = [CADDY, "adapt", "--config", CADDYFILE, "--adapter", "caddyfile"]
    environment = {**os.environ, **variables(8787)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    config = json.loads(done.stdout)
    assert config["admin"]["disabled"] is True
    for server in config["apps"]["http"]["servers"].values():
        assert server["max_header_bytes"] == LIMITS.head_bytes
        assert server["read_header_timeout"] == LIMITS.head_s * 1e9
        # The first two end requests under way; the others are for what comes before and after them.
        assert {"read_timeout", "write_timeout", "logs"} & set(server) == set()
    text = json.dumps(config)
    assert '"keep_alive": {"idle_timeout": 60000000000}' in text
    assert LIMITS.keep_alive_s > 60
    assert not {name for name in ("stream_timeout", "response_header_timeout", "read_timeout") if name in text}
