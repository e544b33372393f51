"""Protocol and method of a request line, and the header `Host`."""

from collections.abc import Iterator

import pytest

from tests.asgi.support import HOST, Running, get, serve, statuses


@pytest.fixture
def running() -> Iterator[Running]:
    with serve() as server:
        yield server


@pytest.mark.parametrize(
    "line",
    [
        b"GET /",
        b"HEAD /",
        b"POST /",
        b"GET / RTSP/1.0",
        b"OPTIONS rtsp://x/ RTSP/1.0",
        b"DESCRIBE / RTSP/1.0",
        b"SOURCE / ICE/1.0",
        b"GET / http/1.1",
        b"GET / HTTP/1.1 ",
        b"GET / HTTP/1.1 x",
        b"GET  / HTTP/1.1",
        b"GET /\tHTTP/1.1",
        b"GET /\nX: HTTP/1.1",
        b"GET /\rX HTTP/1.1",
        b"GET x HTTP/1.1",
        b"G@T / HTTP/1.1",
    ],
)
def test_only_request_lines_of_http_are_served(running: Running, line: bytes) -> None:
    assert statuses(running.exchange(line + b"\r\n" + HOST + b"\r\n")) == [400]
    assert running.app.requests == []


@pytest.mark.parametrize("version", [b"0.9", b"1.2", b"1.10", b"2.0", b"2", b"3", b"9.9"])
def test_a_version_that_is_not_served_gets_505(running: Running, version: bytes) -> None:
    answer = running.exchange(b"GET / HTTP/%s\r\n%s\r\n" % (version, HOST))
    assert statuses(answer) == [505]
    assert answer.endswith(b"only HTTP/1.1 and HTTP/1.0 are served\n")
    assert running.app.requests == []


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "TRACE", "PROPFIND", "FOO", "Get", "X-y.z!", "GETTER"])
def test_the_application_sees_every_method(running: Running, method: str) -> None:
    request = get("/any").replace(b"GET", method.encode(), 1)
    assert statuses(running.exchange(request)) == [200]
    assert [seen.method for seen in running.app.requests] == [method]


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [(b"1.1", 0, 400), (b"1.1", 1, 200), (b"1.1", 2, 400), (b"1.0", 0, 200), (b"1.0", 1, 200), (b"1.0", 2, 400)],
)
def test_a_request_names_one_host(running: Running, version: bytes, hosts: int, status: int) -> None:
    request = b"GET / HTTP/%s\r\n%sConnection: close\r\n\r\n" % (version, HOST * hosts)
    assert statuses(running.exchange(request)) == [status]
