"""The worker's connections to Redis over TCP and unix sockets."""

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
from worker.run.retrying import until_answered

ESTABLISHED = "01"
KEEPALIVE_TIMER = "02"


@asynccontextmanager
async def connected(settings: RedisTcpSettings) -> AsyncIterator[RedisTcp]:
    """Open a client whose two kinds of connections are established."""
    redis = RedisTcp(settings)
    try:
        assert await redis.command("PING") == "PONG"
        async with redis.subscribe("channel"):
            yield redis
    finally:
        await redis.close()


async def test_the_client_connects_through_a_unix_socket(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "redis.sock"
    command = [str(valkey_binary()), "--port", str(port), "--unixsocket", str(path), "--dir", str(tmp_path)]
    with running([*command, "--save", "", "--loglevel", "warning"], port):
        async with connected(RedisTcpSettings(f"unix://{path}")) as redis:
            assert await redis.command("GET", "none") is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/net/tcp")
async def test_every_connection_has_a_keepalive_timer_below_a_minute(tcp: RedisTcpSettings) -> None:
    async with connected(tcp):
        port = urlsplit(tcp.url).port
        rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
        own = [row for row in rows if row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED]
        assert len(own) >= 2
        for row in own:
            timer, _, remaining = row[5].partition(":")
            assert timer == KEEPALIVE_TIMER
            assert int(remaining, 16) / 100 < 60


async def test_commands_of_one_turn_share_a_connection(tcp: RedisTcpSettings) -> None:
    async with connected(tcp) as redis:
        ids = await asyncio.gather(*(redis.command("CLIENT", "ID") for _ in range(10)))
        assert len(set(ids)) == 1


async def test_each_command_of_a_shared_round_trip_gets_its_own_reply_or_error(tcp: RedisTcpSettings) -> None:
    async with connected(tcp) as redis:
        commands = [("ECHO", "a"), ("LPOP", "list", "secret"), ("NOPE",), ("ECHO", "b")]
        first, wrong, unknown, last = await asyncio.gather(
            *(redis.command(*c) for c in commands), return_exceptions=True
        )
        assert (first, last) == ("a", "b")
        assert isinstance(wrong, StoreRejected)
        assert isinstance(unknown, StoreRejected)
        assert "out of range" in str(wrong)
        assert "secret" not in str(wrong)


async def test_a_cancelled_caller_does_not_affect_others_of_its_round_trip(tcp: RedisTcpSettings) -> None:
    async with connected(tcp) as redis:
        cancelled = asyncio.create_task(redis.command("INCR", "cancelled"))
        waiting = asyncio.create_task(redis.command("ECHO", "reply"))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert await waiting == "reply"
        assert cancelled.cancelled()
        await redis.command("DEL", "cancelled")


async def test_all_commands_of_a_round_trip_fail_when_redis_is_down(tmp_path: Path) -> None:
    port = free_port()
    with valkey_server(tmp_path, port) as settings:
        redis = RedisTcp(settings)
        assert await redis.command("PING") == "PONG"
    answers = await asyncio.gather(*(redis.command("PING") for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    await redis.close()


async def test_replies_after_the_deadline_are_given_to_nobody(tcp: RedisTcpSettings) -> None:
    redis, other = RedisTcp(replace(tcp, timeout_s=1.0)), RedisTcp(tcp)
    assert await redis.command("CLIENT", "PAUSE", 60_000, "WRITE") == "OK"
    echoes = (redis.command("EVAL", "return ARGV[1]", 0, f"late {n}") for n in range(3))
    late = await asyncio.gather(*echoes, return_exceptions=True)
    assert [type(answer) for answer in late] == [StoreUnavailable] * 3
    assert await other.command("CLIENT", "UNPAUSE") == "OK"
    await other.close()
    assert await until_answered(lambda: redis.command("ECHO", "own")) == "own"
    await redis.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_that_was_reset_while_idle_is_replaced(
    tcp: RedisTcpSettings, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """redis-py takes the connection for open, and uvloop raises an unusual error for a write to it."""

    async def retried_once(call: Callable[[], Awaitable[object]]) -> object:
        async with asyncio.timeout(20):
            try:
                return await call()
            except StoreUnavailable:
                return await call()

    async def check(redis: RedisTcp, proxy: Proxy) -> None:
        for _ in range(3):
            assert await redis.command("PING") == "PONG"
            assert await redis.wait_token("no tokens", 0.01) is False
            await asyncio.to_thread(proxy.behave, Mode.RESET)
            assert await retried_once(lambda: redis.command("PING")) == "PONG"
            assert await retried_once(lambda: redis.wait_token("no tokens", 0.01)) is False
        async with redis.subscribe("channel") as messages:
            await asyncio.to_thread(proxy.behave, Mode.RESET)
            assert [message async for message in messages] == []
        await redis.close()

    with ProxyHost() as host:
        proxy = host.proxy(urlsplit(tcp.url).port or 0)
        settings = replace(tcp, url=f"redis://{urlsplit(tcp.url).netloc.rpartition(':')[0]}:{proxy.port}")
        run(check(RedisTcp(settings), proxy))
