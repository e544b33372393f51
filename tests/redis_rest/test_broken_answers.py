"""Answers that are cut, malformed, late or too large are `StoreUnavailable`, once, and spoil no later request."""

import asyncio
import gzip
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from infra.contract.errors import StoreFull, StoreRefuses, StoreRejected, StoreUnavailable
from infra.redis_rest import RedisRest, transport
from infra.settings import RedisRestSettings
from tests.redis_rest.conftest import Connect
from tests.redis_rest.raw_server import REPLY, TOKEN, Connection, RawServer, Reply, always, answer, chunked, raw_server

GARBAGE = {
    "zeros": b"\0" * 500,
    "another protocol": b"SSH-2.0-OpenSSH_9.7\r\n",
    "no status": b"HTTP/1.1\r\n\r\n" + REPLY,
    "two lengths": answer(REPLY, b"Content-Length: 5"),
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + REPLY,
    "length too long": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + REPLY,
    "length too short": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + REPLY,
    "no such chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "huge chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    "3 MB of head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 3_000_000 + b"\r\n\r\n",
    "many headers": answer(REPLY, *(b"X-%d: something longer" % number for number in range(5000))),
    "not gzip": answer(REPLY, b"Content-Encoding: gzip"),
    "cut gzip": answer(gzip.compress(REPLY)[:-18], b"Content-Encoding: gzip"),
    "empty": answer(b""),
    "a page": answer(b"<html>Sign in</html>"),
    "two documents": answer(REPLY + REPLY),
    "not UTF-8": answer(b'{"result":"\xff"}'),
    "null": answer(b"null"),
    "a list": answer(b"[]"),
    "a text": answer(b'"result"'),
    "neither result nor error": answer(b"{}"),
    "an error that is an object": answer(b'{"error":{"code":"bad_gateway"}}'),
    "a result with an error that is a list": answer(b'{"result":"YQ==","error":["bad gateway"]}'),
    "a result with another status": answer(status=b"404 Not Found"),
    "an error of a proxy's rate limit": answer(b'{"error":"Too many requests"}', status=b"429 Too Many Requests"),
    "a timeout of a proxy": answer(b'{"error":"Request Timeout"}', status=b"408 Request Timeout"),
    "not base64": answer(b'{"result":"YQ"}'),
    "deep": answer(b"[" * 200_000),
}


@asynccontextmanager
async def connected(
    connect: Connect, reply: Reply, timeout_s: float = 10
) -> AsyncIterator[tuple[RedisRest, RawServer]]:
    async with raw_server(reply) as server:
        redis = connect(RedisRestSettings(server.url, TOKEN, timeout_s))
        try:
            yield redis, server
        finally:
            await redis.close()


async def unavailable(redis: RedisRest) -> str:
    """Return the message of the error of a command."""
    with pytest.raises(StoreUnavailable) as caught:
        await redis.command("GET", "k")
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@pytest.mark.parametrize("whole", [answer(), chunked(REPLY[:5], REPLY[5:])], ids=["length", "chunked"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_an_answer_that_is_cut_at_any_byte_is_an_error_and_is_not_asked_for_again(
    connect: Connect, whole: bytes, reset: bool
) -> None:
    cut = 0

    async def reply(connection: Connection) -> bool:
        await connection.send(whole[:cut])
        if reset and cut < len(whole):
            connection.reset()
        return cut == len(whole)

    async with connected(connect, reply) as (redis, server):
        for cut in range(len(whole)):
            await unavailable(redis)
            assert len(server.requests) == cut + 1
        cut = len(whole)
        assert [await redis.command("GET", "k") for _ in range(3)] == ["a"] * 3
        assert server.connections == len(whole) + 1, "the last connection is kept"


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_is_an_error_and_the_next_request_is_answered(connect: Connect, data: bytes) -> None:
    healthy = False

    async def reply(connection: Connection) -> bool:
        await connection.send(answer() if healthy else data)
        return healthy

    async with connected(connect, reply) as (redis, server):
        await unavailable(redis)
        assert len(server.requests) == 1
        healthy = True
        assert await redis.command("GET", "k") == "a"


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
async def test_a_second_answer_to_a_request_is_not_the_answer_to_the_next_one(connect: Connect, late: bool) -> None:
    sent = asyncio.Event()

    async def reply(connection: Connection) -> bool:
        number = len(connection.server.requests)
        data = answer(b'{"result":%d}' % number)
        await connection.send(data if late else data * 2)
        if late:
            await asyncio.sleep(0.05)  # the connection is idle by then
            await connection.send(answer(b'{"result":"c3RhbGU="}'))
        sent.set()
        return True

    async with connected(connect, reply) as (redis, server):
        for number in range(1, 4):
            sent.clear()
            assert await redis.command("INCR", "k") == number
            await sent.wait()
            await asyncio.sleep(0.05)  # the second answer arrives
        assert server.connections == 3


@pytest.mark.parametrize("body", [b"[]", b'[{"result":1}]', b'[{"result":1},{"result":2},{"result":3}]', b'["a","b"]'])
async def test_a_pipeline_without_one_reply_to_each_command_is_an_error(connect: Connect, body: bytes) -> None:
    async with connected(connect, always(answer(body))) as (redis, _):
        with pytest.raises(StoreUnavailable):
            await redis.pipeline([("GET", "a"), ("GET", "b")])


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (b"400 Bad Request", b"ERR unknown command 'X'", StoreRejected),
        (b"401 Unauthorized", b"Unauthorized", StoreRejected),
        (b"400 Bad Request", b"OOM command not allowed", StoreFull),
        (b"400 Bad Request", b"READONLY replica", StoreRefuses),
        (b"500 Oops", b"ERR unknown command 'X'", StoreUnavailable),
        (b"503 Busy", b"ERR", StoreUnavailable),
    ],
)
async def test_an_error_has_its_class_for_commands_and_pipelines(
    connect: Connect, status: bytes, error: bytes, kind: type[Exception]
) -> None:
    async with connected(connect, always(answer(b'{"error":"%b"}' % error, status=status))) as (redis, _):
        for call in (redis.command("GET", "a"), redis.pipeline([("GET", "a"), ("GET", "b")])):
            with pytest.raises(kind) as caught:
                await call
            assert type(caught.value) is kind


async def test_a_connection_that_was_closed_while_idle_is_not_used(connect: Connect) -> None:
    async def reply(connection: Connection) -> bool:
        await connection.send(answer())
        return False

    async with connected(connect, reply) as (redis, server):
        for _ in range(100):
            assert await redis.command("GET", "k") == "a"
            await asyncio.sleep(0.002)
        assert server.connections == len(server.requests) == 100


async def test_a_request_that_meets_the_end_of_its_connection_is_sent_at_most_once(connect: Connect) -> None:
    """The server reads the second request of each connection and closes without an answer."""
    seen: set[Connection] = set()

    async def reply(connection: Connection) -> bool:
        if connection in seen:
            return False
        seen.add(connection)
        await connection.send(answer())
        return True

    async with connected(connect, reply) as (redis, server):
        for _ in range(50):
            assert await redis.command("GET", "k") == "a"
            await unavailable(redis)
        assert len(server.requests) == 100


async def test_a_second_answer_right_after_the_first_is_not_the_answer_to_the_next_request() -> None:
    """For aiohttp alone: httpx takes it for the next answer."""
    async with connected(RedisRest, always(answer() + answer(b'{"result":"YmFk"}'))) as (redis, _):
        assert [await redis.command("GET", "k") for _ in range(20)] == ["a"] * 20


async def slowly(connection: Connection) -> bool:
    for byte in answer():
        await connection.send(bytes([byte]))
        await asyncio.sleep(0.05)
    return True


async def never(connection: Connection) -> bool:
    await connection.left()
    return False


@pytest.mark.parametrize("broken", [slowly, never])
async def test_a_late_answer_ends_at_the_deadline_and_closes_its_connection(connect: Connect, broken: Reply) -> None:
    gone = asyncio.Event()

    async def reply(connection: Connection) -> bool:
        try:
            return bool(await broken(connection))
        finally:
            gone.set()

    async with connected(connect, reply, timeout_s=1) as (redis, server):
        began = time.monotonic()
        assert "within 1 s" in await unavailable(redis)
        assert time.monotonic() - began < 10
        await asyncio.wait_for(gone.wait(), 60)
        server.reply = always(answer())
        assert await redis.command("GET", "k") == "a"
        assert server.connections == 2


def endless() -> bytes:
    return b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


async def test_an_answer_without_end_is_read_up_to_the_limit(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 1_000_000)
    sent = 0

    async def reply(connection: Connection) -> bool:
        nonlocal sent
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(endless())
            sent += 0x10000

    async with connected(connect, reply) as (redis, server):
        assert "more than 1000000 bytes" in await unavailable(redis)
        assert sent < 30_000_000, "what the buffers of both sides hold"
        server.reply = always(answer())
        assert await redis.command("GET", "k") == "a"


async def test_the_limit_is_that_of_the_decompressed_answer(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(b'{"result":"%b"}' % (b"YQ==" * 10_000_000))
    assert len(bomb) < 100_000
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 1_000_000)
    async with connected(connect, always(answer(bomb, b"Content-Encoding: gzip"))) as (redis, _):
        assert "more than 1000000 bytes" in await unavailable(redis)


async def test_a_compressed_answer_is_read(connect: Connect) -> None:
    async with connected(connect, always(answer(gzip.compress(REPLY), b"Content-Encoding: gzip"))) as (redis, _):
        assert await redis.command("GET", "k") == "a"
