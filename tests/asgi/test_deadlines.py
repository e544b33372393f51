"""Clients that send or read too slowly, and more connections than the server may hold."""

import logging
import socket
import time
from typing import Any

import pytest

from tests.asgi.support import HOST, Client, get, post, serve, statuses
from tests.support.waiting import wait_until

HALF_HEAD = b"GET / HTTP/1.1\r\n" + HOST + b"X: "
HALF_BODY = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\nabc"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
SHORT: dict[str, Any] = {"head_s": 0.3, "body_s": 0.3, "keep_alive_s": 1, "stall_s": 0.5}


def drip(client: Client, part: bytes, seconds: float = 10.0) -> bytes:
    """Send the part every 50 ms until the server closes; return what it answered. Fails after the time."""
    client.sock.settimeout(0.05)
    answer, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            client.sock.sendall(part)
            received = client.sock.recv(1000)
        except TimeoutError:
            continue
        except OSError:
            return answer
        if not received:
            return answer
        answer += received
    raise AssertionError("the server did not close the connection")


@pytest.mark.parametrize(
    ("first", "part", "status"),
    [
        (HALF_HEAD, b"a", [408]),
        (HALF_HEAD, b"\r\na: b", [408]),
        (HALF_BODY, b"a", [408]),
        (CHUNKED, b"1\r\na\r\n", [408]),
        (get("/", close=False) + b"GET /", b"a", [200, 408]),
        (post("/early", b"a" * 100, close=False)[:-50], b"", [200]),
    ],
)
def test_a_dripping_client_is_closed_at_the_deadline(first: bytes, part: bytes, status: list[int]) -> None:
    with serve(**SHORT) as running, running.connect() as client:
        client.send(first)
        assert statuses(drip(client, part)) == status
        wait_until(lambda: running.connections == 0, "the server has closed the connection")


@pytest.mark.parametrize("first", [b"", b"\r\n", HALF_HEAD, HALF_BODY, CHUNKED, CHUNKED + b"3\r\nab"])
def test_a_silent_client_is_closed_at_the_deadline(first: bytes) -> None:
    with serve(**SHORT) as running, running.connect() as client:
        client.send(first)
        answer = client.read_to_end()
        assert statuses(answer) == ([408] if len(first) > 2 else [])
        wait_until(lambda: running.connections == 0, "the server has closed the connection")
    assert running.app.requests == []


def test_the_application_learns_of_a_body_that_does_not_arrive() -> None:
    with serve(**SHORT) as running, running.connect() as client:
        client.send(HALF_BODY)
        client.read_to_end()
        wait_until(lambda: running.app.disconnects == ["/"], "the application is told")


@pytest.mark.parametrize("path", ["/", "/early"])
def test_an_idle_connection_is_closed(path: str) -> None:
    with serve(**SHORT) as running, running.connect() as client:
        request = post(path, b"abc", close=False)
        client.send(request[:-1])
        time.sleep(0.05)
        client.send(request[-1:])
        assert statuses(client.read_to_end()) == [200]


def test_an_answer_may_take_longer_than_the_deadlines() -> None:
    with serve(**SHORT) as running, running.connect() as client:
        client.send(get("/wait", close=False))
        time.sleep(1.5)
        running.app.release.set()
        assert statuses(client.read_until(b"/wait")) == [200]


def unread(running: Any, path: str) -> Client:
    """Ask for a huge answer over a small receive buffer, and read its first bytes."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", running.port))
    client = Client(sock)
    client.send(get(path))
    client.sock.recv(100)
    return client


def test_a_client_that_reads_nothing_is_closed() -> None:
    with serve(**SHORT) as running, unread(running, "/huge"):
        wait_until(lambda: running.connections == 0, "the server has closed the connection", timeout_s=5)


def test_a_client_that_reads_slowly_gets_its_whole_answer() -> None:
    with serve(**SHORT) as running, unread(running, "/huge") as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        received = 100
        for _ in range(30):  # 3 s, while the limit without progress is 0.5 s
            received += len(client.sock.recv(1 << 18))
            time.sleep(0.1)
        assert received + len(client.read_to_end()) > 40_000_000


def lines(caplog: pytest.LogCaptureFixture, action: str) -> list[dict[str, object]]:
    return [record.fields for record in caplog.records if record.getMessage() == action]  # type: ignore[attr-defined]


@pytest.mark.parametrize("first", [b"", HALF_HEAD, HALF_BODY])
def test_waiting_connections_over_the_limit_give_way(first: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "swissbrain")
    with serve(connections=10) as running:
        clients = [running.connect() for _ in range(60)]
        for client in clients:
            client.send(first)
        for _ in range(3):
            assert statuses(running.exchange(get("/"))) == [200]
        assert running.connections <= 11
        for client in clients:
            client.sock.close()
    assert [line["limit"] for line in lines(caplog, "server.full")] == [10]


def test_a_used_connection_stays_while_older_silent_ones_give_way() -> None:
    with serve(connections=10) as running, running.connect() as used:
        silent = [running.connect() for _ in range(9)]
        used.send(get("/one", close=False))
        used.read_until(b"/one")
        more = [running.connect() for _ in range(9)]
        wait_until(lambda: running.connections <= 10, "connections over the limit are closed")
        used.send(get("/two"))
        assert statuses(used.read_to_end()) == [200]
        for client in [*silent, *more]:
            client.sock.close()


def test_requests_under_way_are_kept_and_a_new_connection_gets_503() -> None:
    with serve(connections=3) as running:
        busy = [running.connect() for _ in range(3)]
        for client in busy:
            client.send(get("/wait"))
        wait_until(lambda: running.app.running == 3, "three requests are under way")
        answer = running.exchange()
        assert statuses(answer) == [503]
        assert answer.endswith(b"the server has no free connection\n")
        running.app.release.set()
        assert [statuses(client.read_to_end()) for client in busy] == [[200]] * 3
        for client in busy:
            client.sock.close()


def test_refused_requests_are_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "swissbrain")
    with serve() as running:
        for _ in range(5):
            running.exchange(b"\0")
    assert lines(caplog, "request.refused") == [
        {"status": 400, "reason": "the request does not start with an HTTP method", "count": 1}
    ]
