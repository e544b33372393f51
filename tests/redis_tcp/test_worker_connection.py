"""How the worker reaches Redis."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop

from infra.contract.errors import StoreRejected, StoreUnavailable
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.chaos.proxy import Mode, Proxy, ProxyHost
from tests.support.redis import free_port, running, valkey_binary, valkey_server

ESTABLISHED = "01"
KEEPALIVE_TIMER = "02"


@asynccontextmanager
async def connected(settings: RedisTcpSettings) -> AsyncIterator[RedisTcp]:
    redis = RedisTcp(settings)
    try:
        assert await redis.command("PING") == "PONG"
        async with redis.subscribe("channel"):
            yield redis
    finally:
        await redis.close()


async def test_it_reaches_redis_through_a_unix_socket(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "redis.sock"
    command = [str(valkey_binary()), "--port", str(port), "--unixsocket", str(path), "--dir", str(tmp_path)]
    with running([*command, "--save", "", "--loglevel", "warning"], port):
        async with connected(RedisTcpSettings(f"unix://{path}")) as redis:
            assert await redis.command("GET", "none") is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked for its timers")
async def test_the_kernel_looks_soon_whether_redis_is_still_there(tcp: RedisTcpSettings) -> None:
    async with connected(tcp):
        port = urlsplit(tcp.url).port
        rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
        own = [row for row in rows if row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED]
        assert len(own) >= 2
        for row in own:
            timer, _, left = row[5].partition(":")
            assert timer == KEEPALIVE_TIMER
            assert int(left, 16) / 100 < 60


async def test_what_is_asked_in_one_turn_shares_a_connection(tcp: RedisTcpSettings) -> None:
    async with connected(tcp) as redis:
        ids = await asyncio.gather(*(redis.command("CLIENT", "ID") for _ in range(10)))
        assert len(set(ids)) == 1


async def test_each_of_those_who_ask_together_gets_its_own_reply_or_refusal(tcp: RedisTcpSettings) -> None:
    async with connected(tcp) as redis:
        asked = [("ECHO", "a"), ("LPOP", "list", "secret"), ("NOPE",), ("ECHO", "b")]
        first, wrong, unknown, last = await asyncio.gather(*(redis.command(*a) for a in asked), return_exceptions=True)
        assert (first, last) == ("a", "b")
        assert isinstance(wrong, StoreRejected)
        assert isinstance(unknown, StoreRejected)
        assert "out of range" in str(wrong)
        assert "secret" not in str(wrong)


async def test_who_gives_up_disturbs_nobody_who_asked_with_it(tcp: RedisTcpSettings) -> None:
    async with connected(tcp) as redis:
        impatient = asyncio.create_task(redis.command("INCR", "given-up"))
        patient = asyncio.create_task(redis.command("ECHO", "still here"))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await patient == "still here"
        assert impatient.cancelled()
        await redis.command("DEL", "given-up")


async def test_all_who_asked_together_hear_that_redis_is_gone(tmp_path: Path) -> None:
    port = free_port()
    with valkey_server(tmp_path, port) as settings:
        redis = RedisTcp(settings)
        assert await redis.command("PING") == "PONG"
    answers = await asyncio.gather(*(redis.command("PING") for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    await redis.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_that_was_reset_while_nobody_used_it_is_replaced(
    tcp: RedisTcpSettings, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """To redis-py it looks as if it were open, and uvloop has an error of its own for whoever writes to it."""

    async def asked(call: Callable[[], Awaitable[object]]) -> object:
        async with asyncio.timeout(20):
            try:
                return await call()
            except StoreUnavailable:
                return await call()

    async def check(redis: RedisTcp, way: Proxy) -> None:
        for _ in range(3):
            assert await redis.command("PING") == "PONG"
            assert await redis.wait_token("no tokens", 0.01) is False
            await asyncio.to_thread(way.behave, Mode.RESET)
            assert await asked(lambda: redis.command("PING")) == "PONG"
            assert await asked(lambda: redis.wait_token("no tokens", 0.01)) is False
        async with redis.subscribe("channel") as messages:
            await asyncio.to_thread(way.behave, Mode.RESET)
            assert [message async for message in messages] == []
        await redis.close()

    with ProxyHost() as host:
        way = host.proxy(urlsplit(tcp.url).port or 0)
        settings = replace(tcp, url=f"redis://{urlsplit(tcp.url).netloc.rpartition(':')[0]}:{way.port}")
        run(check(RedisTcp(settings), way))
