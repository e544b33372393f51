"""A Redis that a failover has made a replica."""

from pathlib import Path

import pytest

from infra.contract.errors import StoreUnavailable
from infra.redis_tcp import RedisTcp
from tests.support.redis import free_port, valkey_server
from tests.support.waiting import until


async def test_after_a_refused_write_new_connections_are_made(tmp_path: Path) -> None:
    """Old connections lead to the old master for ever; after a failover the address leads to the new one."""
    with valkey_server(tmp_path) as settings:
        redis = RedisTcp(settings)
        try:
            assert not await redis.wait_token("tokens", 0.01)
            before = await redis.command("CLIENT", "ID")
            await redis.command("REPLICAOF", "127.0.0.1", free_port())
            with pytest.raises(StoreUnavailable, match="READONLY"):
                await redis.pipeline([("GET", "k"), ("SET", "k", "v")])
            assert await redis.command("CLIENT", "ID") != before
            with pytest.raises(StoreUnavailable, match="READONLY"):
                await redis.wait_token("tokens", 0.01)

            async def blocking_is_closed() -> bool:
                return str(await redis.command("CLIENT", "LIST")).count("cmd=") == 1

            await until(blocking_is_closed, "the blocking connection is closed")
        finally:
            await redis.close()
