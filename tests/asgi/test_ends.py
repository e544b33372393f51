"""How a connection ends: the client sees its answer, whatever it still sends, and also if it sends no more."""

import gc
import socket
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from tests.asgi.support import HOST, Running, get, post, serve, statuses
from tests.support.waiting import wait_until

SLOWLY: dict[str, Any] = {"linger_s": 60.0}
"""Far longer than a test takes: only the steps of a test reach it."""
PARTS = {
    "in chunks": b"POST /early HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "with its size": post("/early", b"a" * 1_000_000)[:-999_000],
    "in HTTP/1.0": b"POST /early HTTP/1.0\r\nContent-Length: 1000000\r\n\r\nhello",
    "after 100": post("/early", b"a" * 1_000_000, b"Expect: 100-continue", close=False)[:-1_000_000],
}


@pytest.fixture
def running() -> Iterator[Running]:
    with serve(**SLOWLY) as server:
        yield server


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_an_early_answer_is_seen_by_a_client_that_goes_on_sending(running: Running, part: bytes) -> None:
    with running.connect() as client:
        client.send(part)
        head, _, body = client.read_to_end().partition(b"\r\n\r\n")
        assert (statuses(head), body) == ([200], b"early")
        assert b"connection: close" in head
        client.sock.sendall(b"a" * 5_000_000)  # raises if the connection is reset
    assert running.app.requests == []


def test_a_client_that_sends_without_end_after_its_answer_is_cut_off(running: Running) -> None:
    with running.connect() as client:
        client.send(PARTS["in chunks"])
        client.read_to_end()
        client.sock.setblocking(False)  # so that a step can come in between
        sent = 0

        def waits() -> bool:
            """Send what the server takes; return whether it takes nothing more."""
            nonlocal sent
            try:
                while sent < 100_000_000:
                    sent += client.sock.send(bytes(100_000))
            except BlockingIOError:
                return sent > 8_000_000
            return False

        wait_until(waits, "the server takes nothing more")
        running.step(61)
        wait_until(lambda: running.connections == 0, "the server closes the connection")


def test_a_client_that_sends_no_more_gets_all_its_answers(running: Running) -> None:
    with running.connect() as client:
        client.send(get("/wait", close=False) + post("/", b"abc", close=False) + get("/stream", close=False) + b"GET")
        client.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: running.app.running == 1, "the request is under way")
        running.step(40)
        running.app.release.set()
        assert statuses(client.read_to_end()) == [200, 200, 200]


def test_a_client_that_may_have_left_is_not_waited_for(running: Running) -> None:
    with running.connect() as client:
        client.send(get("/listen", close=False))
        client.sock.shutdown(socket.SHUT_WR)
        running.step(40)
        assert running.app.running == 1
        running.step(40)
        assert client.read_to_end() == b""
        wait_until(lambda: running.app.disconnects == ["/listen"], "the application is told")


@pytest.mark.parametrize("part", [b"", b"GET / HTTP/1.1\r\n", post("/", b"abc")[:-1]])
def test_a_client_that_ends_within_a_request_gets_no_answer(running: Running, part: bytes) -> None:
    with running.connect() as client:
        client.send(part)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.read_to_end() == b""


def test_requests_that_outlast_a_shutdown_get_503(running: Running) -> None:
    waiting, sending = running.connect(), running.connect()
    waiting.send(get("/listen"))
    sending.send(post("/", b"abc")[:-1])
    wait_until(lambda: running.app.running == 2, "the requests are under way")
    running.server.should_exit = True
    for client in (waiting, sending):
        answer = client.read_to_end()
        assert statuses(answer) == [503]
        assert answer.endswith(b"the server is shutting down; the request may have been carried out\n")


def test_a_closed_connection_is_freed_without_the_garbage_collector(running: Running) -> None:
    gc.disable()
    try:
        with running.connect() as client:
            client.send(post("/", b"abc", close=False))
            client.read_until(b"abc")
            [connection] = map(weakref.ref, running.server.server_state.guarded)
        wait_until(lambda: connection() is None, "the connection is freed")
    finally:
        gc.enable()
