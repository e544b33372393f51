"""How the worker reaches Redis."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.support.redis import free_port, running, valkey_binary

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
