"""Clients that send or read too slowly, and more connections than the server may hold."""

import logging
from typing import Any

import pytest

from tests.asgi.support import HOST, Client, Running, get, post, serve, statuses
from tests.support.waiting import wait_until

HALF_HEAD = b"GET / HTTP/1.1\r\n" + HOST + b"X: "
HALF_BODY = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\nabc"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
DEADLINES: dict[str, Any] = {"head_s": 60.0, "body_s": 60.0, "stall_s": 60.0}
"""Far longer than a test takes: only the steps of a test reach them."""


@pytest.mark.parametrize(
    ("first", "part", "status"),
    [
        (HALF_HEAD, b"a", [408]),
        (HALF_HEAD, b"\r\na: b", [408]),
        (HALF_BODY, b"a", [408]),
        (CHUNKED, b"1\r\na\r\n", [408]),
        (get("/", close=False) + b"GET /", b"a", [200, 408]),
        (post("/early", b"a" * 100, close=False)[:-50], b"a", [200]),
    ],
)
def test_a_dripping_client_is_closed_at_the_deadline(first: bytes, part: bytes, status: list[int]) -> None:
    with serve(**DEADLINES) as running, running.connect() as client:
        client.send(first)
        running.step(40)
        assert running.connections == 1
        client.send(part)
        running.step(40)
        assert statuses(client.read_to_end()) == status
        wait_until(lambda: running.connections == 0, "the server has closed the connection")


@pytest.mark.parametrize("first", [b"", b"\r\n", HALF_HEAD, HALF_BODY, CHUNKED, CHUNKED + b"3\r\nab"])
def test_a_silent_client_is_closed_at_the_deadline(first: bytes) -> None:
    with serve(**DEADLINES) as running, running.connect() as client:
        client.send(first)
        running.step(61)
        assert statuses(client.read_to_end()) == ([408] if len(first) > 2 else [])
        wait_until(lambda: running.connections == 0, "the server has closed the connection")
    assert running.app.requests == []


def test_the_application_learns_of_a_body_that_does_not_arrive() -> None:
    with serve(**DEADLINES) as running, running.connect() as client:
        client.send(HALF_BODY)
        running.step(61)
        client.read_to_end()
        wait_until(lambda: running.app.disconnects == ["/"], "the application is told")


@pytest.mark.parametrize("path", ["/", "/early"])
def test_an_idle_connection_is_closed(path: str) -> None:
    with serve(keep_alive_s=1) as running, running.connect() as client:
        request = post(path, b"abc", close=False)
        client.send(request[:-1])
        early = client.read_until(b"early") if path == "/early" else b""
        client.send(request[-1:])
        assert statuses(early + client.read_to_end()) == [200]


def test_an_answer_may_take_longer_than_the_deadlines() -> None:
    with serve(**DEADLINES) as running, running.connect() as client:
        client.send(get("/wait", close=False))
        running.step(200)
        running.app.release.set()
        assert statuses(client.read_until(b"/wait")) == [200]


def unread(running: Running, receive_buffer: int) -> Client:
    """Ask for a huge answer, and read its first bytes."""
    client = running.connect(receive_buffer)
    client.send(get("/huge"))
    client.sock.recv(100)
    return client


def test_a_client_that_reads_nothing_is_closed() -> None:
    with serve(**DEADLINES) as running:
        unread(running, receive_buffer=4096)

        def closed() -> bool:
            """Step again: a step may fall into the time in which the buffers of the kernel still fill."""
            running.step(61)
            return running.connections == 0

        wait_until(closed, "the server has closed the connection")


def test_a_client_that_reads_slowly_gets_its_whole_answer() -> None:
    with serve(**DEADLINES) as running:
        client = unread(running, receive_buffer=1 << 18)
        received = 100
        for _ in range(3):
            # More than the buffers of the kernel hold, so that the server has certainly passed on a part since the
            # last step.
            end = received + 10_000_000
            while received < end:
                received += len(client.sock.recv(1 << 18))
            running.step(40)
        assert received + len(client.read_to_end()) > 40_000_000


def lines(caplog: pytest.LogCaptureFixture, action: str) -> list[dict[str, object]]:
    return [record.fields for record in caplog.records if record.getMessage() == action]  # type: ignore[attr-defined]


@pytest.mark.parametrize("first", [b"", HALF_HEAD, HALF_BODY])
def test_waiting_connections_over_the_limit_give_way(first: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "swissbrain")
    with serve(connections=10) as running:
        for client in [running.connect() for _ in range(60)]:
            client.send(first)
        for _ in range(3):
            assert statuses(running.exchange(get("/"))) == [200]
        wait_until(lambda: running.connections <= 10, "connections over the limit are closed")
    assert [line["limit"] for line in lines(caplog, "server.full")] == [10]


def test_a_used_connection_stays_while_older_silent_ones_give_way() -> None:
    with serve(connections=10) as running:
        used = running.connect()
        silent = [running.connect() for _ in range(9)]
        # The server may answer a request before it accepts connections that were made before the request was sent.
        wait_until(lambda: running.connections == 10, "all connections are accepted")
        used.send(get("/one", close=False))
        used.read_until(b"/one")
        for _ in range(9):
            running.connect()
        for client in silent:
            assert client.read_to_end() in (b"", b"<reset>")
        used.send(get("/two"))
        assert statuses(used.read_to_end()) == [200]


def test_requests_under_way_are_kept_and_a_new_connection_gets_503() -> None:
    with serve(connections=3) as running:
        busy = [running.connect() for _ in range(3)]
        for client in busy:
            client.send(get("/wait"))
        wait_until(lambda: running.app.running == 3, "three requests are under way")
        for packets in ([], *[[get("/")]] * 20):  # a request that comes with the connection must not reset it
            answer = running.exchange(*packets)
            assert statuses(answer) == [503]
            assert answer.endswith(b"the server has no free connection\n")
        running.app.release.set()
        assert [statuses(client.read_to_end()) for client in busy] == [[200]] * 3


def test_refused_requests_are_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "swissbrain")
    with serve() as running:
        for _ in range(5):
            running.exchange(b"\0")
    assert lines(caplog, "request.refused") == [
        {"status": 400, "reason": "the request does not start with an HTTP method", "count": 1}
    ]
