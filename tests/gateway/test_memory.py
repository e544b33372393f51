"""Memory for the replies to all requests: clients that do not read theirs cannot take it from others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from infra.gateway import memory, request_memory
from infra.gateway.errors import NotSent
from infra.gateway.memory import FREE_BYTES, MemoryShare, ReplyMemory
from infra.gateway.skip import Retained
from infra.gateway.stream_buffer import CloseReason, StreamBuffer, StreamMemory
from tests.gateway.support import TOKEN, Served, Valkey, serve
from tests.support.waiting import wait_until

SIZE = 2_000_000
# JSON has six bytes for each zero byte, which is more than the buffers of a socket take.
ZEROS = b"\0" * SIZE
BUSY = "ERR gateway is busy: large replies to other requests take its memory; the command may have been executed"


@pytest.fixture
def small(valkey: Valkey) -> Iterator[Served]:
    """Gateway that has memory for four replies of `SIZE`."""
    with serve(valkey.url, max_response_bytes=SIZE) as served:
        with served.client() as client:
            client.post("/set/zeros", content=ZEROS)
        yield served


@contextmanager
def reader_that_stops(served: Served, path: str = "/get/zeros") -> Iterator[socket.socket]:
    """Send a request and read only the first bytes of the response."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.connect(("127.0.0.1", served.port))
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert sock.recv(15) == b"HTTP/1.1 200 OK"
        yield sock


def cut_off(sock: socket.socket) -> bool:
    """Return True if the response ends before its last chunk."""
    received = b""
    try:
        while not received.endswith(b"\r\n0\r\n\r\n"):
            data = sock.recv(1 << 20)
            if not data:
                return True
            received = received[-16:] + data[-16:]
    except ConnectionResetError:
        return True
    return False


def test_responses_that_nobody_reads_give_way_to_others(small: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack, small.client() as client:
        monkeypatch.setattr(memory, "_STALLED_S", 1e9)
        monkeypatch.setattr(memory, "_WAIT_S", 0.1)
        readers = [stack.enter_context(reader_that_stops(small)) for _ in range(4)]
        for headers in ({}, {"Upstash-Response-Format": "resp2"}):
            refused = client.get("/get/zeros", headers=headers)
            assert refused.status_code == 503
            assert BUSY in refused.text
        batch = client.post("/pipeline", json=[["ECHO", "a"], ["GET", "zeros"], ["ECHO", "b"]])
        assert batch.status_code == 200
        assert batch.json() == [{"result": "a"}, {"error": BUSY}, {"error": BUSY}]
        assert client.get("/ping").json() == {"result": "PONG"}

        monkeypatch.setattr(memory, "_STALLED_S", 0.5)
        monkeypatch.setattr(memory, "_WAIT_S", 60)
        assert client.get("/get/zeros").json() == {"result": "\0" * SIZE}
        assert cut_off(readers[0])
        assert not cut_off(readers[-1])
    wait_until(lambda: small.gateway.endpoint.memory.used_bytes == 0, "all memory is given back")


def test_a_response_larger_than_the_memory_is_sent_while_no_other_is(small: Served) -> None:
    script = f"local t = {{}} for i = 1, {SIZE // 8} do t[i] = {{}} end return t"
    with small.client() as client:
        response = client.post("/", json=["EVAL", script, 0])
        assert response.status_code == 200
        assert len(response.json()["result"]) == SIZE // 8


def test_a_response_is_complete_for_a_client_that_reads_slowly(small: Served) -> None:
    with reader_that_stops(small, "/get/zeros") as sock:
        body = b""
        while not body.endswith(b"\r\n0\r\n\r\n"):
            body += sock.recv(100_000)
        assert body.count(b"\\u0000") + body.count(b"\\u00\r\n") > SIZE * 0.9
        assert body.startswith(b"\r\n")


def test_many_large_replies_are_received_one_after_the_other(small: Served) -> None:
    script = f"local t = {{}} for i = 1, {SIZE // 40} do t[i] = 'abc' end return t"

    def ask(_: int) -> int:
        with small.client() as client:
            return len(client.post("/", json=["EVAL", script, 0]).json()["result"])

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(ask, range(12))) == [SIZE // 40] * 12


async def test_small_replies_are_always_accepted() -> None:
    total = ReplyMemory(10)
    first, second = MemoryShare(total), MemoryShare(total)
    assert first.add(b"x" * FREE_BYTES)
    assert first.add(b"x" * 100), "nobody else holds anything"
    assert second.add(b"x" * FREE_BYTES)
    assert not second.add(b"x")
    waiting = asyncio.create_task(second.wait())
    await asyncio.sleep(0)
    first.release()
    assert await waiting
    assert first.add(b"x"), "a released share counts nothing"
    second.release()
    assert total.used_bytes == 0


async def test_of_incomplete_replies_the_first_one_goes_on() -> None:
    total = ReplyMemory(100)
    shares = [MemoryShare(total) for _ in range(3)]
    for share in shares:
        share.add(b"x" * FREE_BYTES)
    assert [share.add(b"x" * 40) for share in shares] == [True, True, False]
    assert [share.add(b"x" * 20) for share in shares] == [True, False, False]
    shares[0].read(asyncio.timeout(None))  # its reply is whole
    assert not shares[1].add(b"x"), "whole replies and the next one exceed the limit"
    shares[0].release()
    assert shares[1].add(b"x")
    assert not shares[2].add(b"x")


async def test_the_client_that_has_read_nothing_for_longest_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STALLED_S", 0)
    total = ReplyMemory(250)
    ended: list[int] = []

    async def send(number: int) -> None:
        share = MemoryShare(total)
        share.add(b"x" * FREE_BYTES)
        share.add(b"x" * 100)
        try:
            async with asyncio.timeout(None) as scope:
                share.read(scope)
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append(number)

    tasks = [asyncio.create_task(send(number)) for number in (0, 1)]
    await asyncio.sleep(0)
    third = MemoryShare(total)
    third.add(b"x" * FREE_BYTES)
    assert third.add(b"x" * 100)
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert ended == [0]
    assert total.used_bytes == 200
    for task in tasks:
        task.cancel()


def test_replies_that_have_ended_are_not_retained() -> None:
    retained = Retained()
    reply = b"$3000000\r\n" + b"x" * 3_000_000 + b"\r\n"
    stream = reply * 20
    ended = 0
    for start in range(0, len(stream), 16_000):
        data = stream[start : start + 16_000]
        whole = (start + len(data)) // len(reply)
        retained.add(data, whole - ended)
        ended = whole
    assert retained.complete
    assert sum(map(len, retained.pieces)) < len(reply) + 16_000


def test_bodies_that_do_not_arrive_give_way_to_others(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client with a token could make the gateway hold 10 MB for a minute."""
    monkeypatch.setattr(request_memory, "UPLOAD_S", 0.1)
    head = (
        f"POST /set/k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100000\r\n\r\n".encode()
    )
    with serve(valkey.url, max_request_bytes=100_000) as served, served.client() as http:
        held = served.gateway.endpoint.request_memory
        stalled = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(16)]
        for sock in stalled:
            sock.sendall(head + b"x" * 99_999)
        wait_until(lambda: held.used_bytes == 1_600_000, "the memory is used up")
        assert http.post("/", json=["PING"]).json() == {"result": "PONG"}
        assert http.post("/set/k", content=b"v" * 100_000).json() == {"result": "OK"}
        for sock in stalled:
            sock.sendall(b"x")
        answers = [sock.recv(1 << 16) for sock in stalled]
        assert sum(b"200 OK" in answer for answer in answers) == 15
        assert sum(answer.endswith(b'take its memory; the command was not sent"}') for answer in answers) == 1
        wait_until(lambda: held.used_bytes == 0, "the memory is free")
        chunks = (b"v" * 1000 for _ in range(100))
        assert http.post("/set/k", content=chunks).json() == {"result": "OK"}
        for sock in stalled:
            sock.close()


async def test_a_body_waits_for_memory_no_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_memory, "_WAIT_S", 0.01)
    held = request_memory.RequestMemory(100)
    async with held.body_of(200):
        with pytest.raises(NotSent):
            async with held.body_of(1):
                raise AssertionError("there is no memory")
    async with held.body_of(60) as count, held.body_of(40):
        assert held.used_bytes == 100
        count(20)
        async with held.body_of(40):
            assert held.used_bytes == 100
    assert held.used_bytes == 0


async def test_slow_clients_share_what_waits_for_them() -> None:
    memory = StreamMemory(600_010)
    buffers = [StreamBuffer(1 << 20, memory) for _ in range(3)]
    frames = [bytes([number]) * 60_000 for number in range(10)]
    for buffer in buffers:
        for each in frames:
            buffer.put(each)
    for buffer in buffers:
        assert [await buffer.take() for _ in frames] == frames
        for number in range(3):
            buffer.put(b"%d" % number)
        assert await buffer.take() == b"012"
        buffer.release()
    assert memory.used_bytes == 0


async def test_of_many_slow_clients_those_that_have_read_nothing_for_longest_are_cut_off() -> None:
    memory = StreamMemory(100)
    first, second, third = (StreamBuffer(100, memory) for _ in range(3))
    first.put(b"1" * 40)
    assert await first.take() == b"1" * 40
    second.put(b"2" * 40)
    first.read()
    third.put(b"3" * 40)
    assert second.closed.result() is CloseReason.OVERFLOW
    assert await second.take() is None
    third.put(b"4" * 40)
    assert first.closed.result() is CloseReason.OVERFLOW
    assert memory.used_bytes == 80
    assert await third.take() == b"3" * 40 + b"4" * 40
    third.put(b"5")
    assert await third.take() == b"5"
    assert memory.used_bytes == 1
    third.release()
    assert memory.used_bytes == 0
    assert not third.closed.done()


def test_a_stream_of_too_many_channels_is_rejected(small: Served) -> None:
    path = "/subscribe/" + "/".join(map(str, range(1001)))
    with small.client() as client:
        response = client.post(path)
        assert response.status_code == 400
        assert response.json() == {"error": "ERR no more than 1000 channels or patterns in one stream"}
