"""The load generator of the benchmarks, against servers that answer byte by byte as the test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing

import pytest

from bench.generator import HELD_BYTES, Generator, RequestFailed

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def answer(body: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers, b"", body])


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def server(handle: Handler) -> AsyncIterator[Generator]:
    """Serve each connection with `handle`; yield a generator of load for this server."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(serve(reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    with closing(Generator(f"http://127.0.0.1:{port}", "a-token")) as generator:
        yield generator
    listening.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def test_requests_one_after_another_share_a_connection() -> None:
    heads: list[list[bytes]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append([])
        while True:
            heads[-1].append(await head(reader))
            if b"POST" in heads[-1][-1]:
                assert await reader.readexactly(8) == b'{"a": 1}'
            writer.write(answer(b'{"b": 2}'))

    async with server(handle) as generator:
        assert [await generator.get("/x"), await generator.post("/y", {"a": 1})] == [{"b": 2}] * 2
    assert len(heads) == 1
    assert heads[0][0].startswith(b"GET /x HTTP/1.1\r\n")
    assert b"Authorization: Bearer a-token\r\n" in heads[0][0]
    assert b"Content-Length: 8\r\n" in heads[0][1]


async def test_requests_at_once_have_connections_of_their_own() -> None:
    waiting = 0
    everybody = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting
        await head(reader)
        waiting += 1
        if waiting == 3:
            everybody.set()
        await everybody.wait()
        writer.write(answer(b"[]"))

    async with server(handle) as generator:
        assert await asyncio.gather(*(generator.get("/") for _ in range(3))) == [[], [], []]


async def test_a_connection_that_the_server_closes_is_not_used_again() -> None:
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await head(reader)
        writer.write(answer(b"1", b"200 OK", b"Connection: close"))

    async with server(handle) as generator:
        assert [await generator.get("/"), await generator.get("/")] == [1, 1]
    assert connections == 2


async def test_an_error_status_is_raised_with_what_the_server_says() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head(reader)
            writer.write(answer(b"no such run", b"404 Not Found"))

    async with server(handle) as generator:
        with pytest.raises(RequestFailed, match="GET /runs/1 was answered with 404: no such run"):
            await generator.get("/runs/1")
        with pytest.raises(RequestFailed, match="404: no such run"):
            _ = [line async for line in generator.lines("/runs/1")]


async def test_an_answer_may_be_longer_than_what_is_held_of_a_stream() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(answer(b"x" * 3 * HELD_BYTES))
        await writer.drain()

    async with server(handle) as generator:
        assert len(await generator.request("GET", "/")) == 3 * HELD_BYTES


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", answer(b"12345")[:-2], b"this is not HTTP\r\n\r\n"]
)
async def test_half_an_answer_is_an_error(sent: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(sent)

    async with server(handle) as generator:
        with pytest.raises(RequestFailed, match=r"the connection ended before the answer|the answer is not HTTP"):
            await generator.request("GET", "/")


async def test_lines_of_a_stream_arrive_one_by_one_however_they_are_cut() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(STREAM_HEAD)
        for byte in b"data: 1\n\ndata: 2\n":
            writer.write(chunk(bytes([byte])))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")

    async with server(handle) as generator:
        assert [line async for line in generator.lines("/")] == [b"data: 1", b"", b"data: 2"]


async def test_a_connection_is_used_again_after_a_stream_that_was_read_in_part() -> None:
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await head(reader)
            writer.write(STREAM_HEAD + chunk(b"end\n") + chunk(b"left over\n") + b"0\r\n\r\n")

    async with server(handle) as generator:
        for _ in range(3):
            async with aclosing(generator.lines("/")) as lines:
                assert await anext(lines) == b"end"
        assert await generator.request("GET", "/") == b"end\nleft over\n"
    assert connections == 1


async def test_a_connection_is_read_again_after_a_stream_that_was_held_until_its_end() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head(reader)
            writer.write(STREAM_HEAD + 5 * chunk(b"x" * (HELD_BYTES // 4 - 1) + b"\n") + b"0\r\n\r\n")

    async with server(handle) as generator:
        for _ in range(3):
            assert len([line async for line in generator.lines("/")]) == 5
        assert len(await generator.request("GET", "/")) == 5 * HELD_BYTES // 4


async def test_a_line_arrives_before_the_stream_ends() -> None:
    left = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(STREAM_HEAD + chunk(b"now\n"))
        await reader.read()
        left.set()

    async with server(handle) as generator:
        async with aclosing(generator.lines("/")) as lines:
            assert await anext(lines) == b"now"
        await asyncio.wait_for(left.wait(), 60)


async def test_a_stream_that_breaks_off_is_an_error_after_its_lines() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(STREAM_HEAD + chunk(b"one\n"))

    async with server(handle) as generator:
        lines = generator.lines("/")
        assert await anext(lines) == b"one"
        with pytest.raises(RequestFailed, match="the connection ended before the answer"):
            await anext(lines)


async def test_a_reader_that_does_not_read_holds_a_bounded_part_of_the_stream() -> None:
    sent = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await head(reader)
        writer.write(STREAM_HEAD)
        for _ in range(64):
            writer.write(chunk(b"x" * (HELD_BYTES // 2 - 1) + b"\n"))
            await writer.drain()
            sent += 1
        writer.write(b"0\r\n\r\n")

    async with server(handle) as generator, aclosing(generator.lines("/")) as lines:
        await anext(lines)
        await asyncio.sleep(0.5)
        assert sent < 40
        assert len([line async for line in lines]) == 63
