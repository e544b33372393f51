"""Subscriptions over server-sent events: cut, split, silent, malformed and abandoned streams."""

import asyncio
import time

import pytest

from infra.contract.errors import StoreUnavailable
from infra.redis_rest import sse, transport
from infra.settings import RedisRestSettings
from tests.redis_rest.conftest import Connect
from tests.redis_rest.raw_server import TOKEN, Connection, Reply, always, answer, raw_server

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
CONFIRMED = b"data: subscribe,c,1\n\n"
MESSAGES = (
    b": ping\n\ndata: message,c,first\n\ndata: message,other,no\n\ndata: message,c,z\xc3\xbcrich,\xe2\x82\xac\n\n"
)


async def received(connect: Connect, reply: Reply) -> list[str]:
    """Subscribe, and return the messages until the stream ends."""
    async with raw_server(reply) as server:
        redis = connect(RedisRestSettings(server.url, TOKEN, 10))
        try:
            async with redis.subscribe("c") as messages:
                return [message async for message in messages]
        finally:
            await redis.close()


async def test_messages_arrive_however_their_bytes_are_split(connect: Connect) -> None:
    whole = HEAD + CONFIRMED + MESSAGES

    for ends in (b"\n", b"\r\n"):
        data = whole if ends == b"\n" else HEAD + (CONFIRMED + MESSAGES).replace(b"\n", b"\r\n")
        for size in (1, 2, 7, len(data)):

            async def split(connection: Connection, data: bytes = data, size: int = size) -> bool:
                for at in range(0, len(data), size):
                    await connection.send(data[at : at + size])
                    await asyncio.sleep(0)
                return False

            assert await received(connect, split) == ["first", "zürich,€"]


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_stream_that_is_cut_at_any_byte_ends_with_its_complete_messages(connect: Connect, reset: bool) -> None:
    whole = HEAD + CONFIRMED + MESSAGES
    confirmed = len(HEAD + CONFIRMED)
    for cut in range(0, len(whole), 3):

        async def reply(connection: Connection, cut: int = cut) -> bool:
            await connection.send(whole[:cut])
            await asyncio.sleep(0.01)
            if reset:
                connection.reset()
            return False

        if cut < confirmed:
            with pytest.raises(StoreUnavailable):
                await received(connect, reply)
        else:
            expected = [text for text, event in (("first", b"first\n\n"), ("zürich,€", whole)) if event in whole[:cut]]
            assert await received(connect, reply) == expected


@pytest.mark.parametrize(
    "data",
    [
        answer(),
        answer(b'{"error":"NOPERM"}', status=b"403 Forbidden"),
        answer(b"", b"Location: http://localhost:1/", status=b"307 Moved"),
        answer(b"", status=b"503 Busy"),
        HEAD + b"data: subscribe,c,1",
        HEAD + b": ping\n\n",
        HEAD + b"data: \xff\n\n",
        b"garbage",
        b"",
    ],
)
async def test_what_is_no_confirmed_subscription_is_an_error(connect: Connect, data: bytes) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await received(connect, always(data, stay=False))
    assert TOKEN not in str(caught.value)


async def test_leaving_a_subscription_closes_its_connection_at_once(connect: Connect) -> None:
    left = asyncio.Event()

    async def reply(connection: Connection) -> bool:
        await connection.send(HEAD + CONFIRMED)
        await connection.left()
        left.set()
        return False

    async with raw_server(reply) as server:
        redis = connect(RedisRestSettings(server.url, TOKEN))
        async with redis.subscribe("c"):
            pass
        await asyncio.wait_for(left.wait(), 60)

        left.clear()
        following = asyncio.create_task(received_from(redis.subscribe("c")))
        while len(server.requests) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await asyncio.wait_for(left.wait(), 60)
        await redis.close()


async def received_from(subscription: object) -> None:
    async with subscription as messages:  # type: ignore[attr-defined]
        async for _ in messages:
            pass


async def test_a_silent_subscription_ends(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_SILENCE_S", 0.3)

    async def reply(connection: Connection) -> bool:
        await connection.send(HEAD + CONFIRMED + MESSAGES)
        await connection.left()
        return False

    began = time.monotonic()
    assert await received(connect, reply) == ["first", "zürich,€"]
    assert 0.2 < time.monotonic() - began < 10


async def test_an_event_without_end_is_read_up_to_the_limit(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 500_000)
    sent = 0

    async def reply(connection: Connection) -> bool:
        nonlocal sent
        await connection.send(HEAD + CONFIRMED + b"data: message,c,first\n\ndata: message,c,")
        while True:
            await connection.send(b"x" * 65_536)
            sent += 65_536

    assert await received(connect, reply) == ["first"]
    assert sent < 30_000_000, "what the buffers of both sides hold"
