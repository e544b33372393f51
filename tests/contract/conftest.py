"""Fixtures of the contract suite: every test runs through both Redis clients, REST and TCP."""

from collections.abc import AsyncIterator, Iterator

import pytest

from infra.contract.redis import Redis
from infra.redis_rest import RedisRest
from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings, RedisTcpSettings
from tests.contract.driver import Driver, keys_without_ttl
from tests.support.redis import gateway
from tests.support.run_store import RunStore
from tests.support.servers import valkey_fixture

tcp = valkey_fixture()


@pytest.fixture(scope="session")
def rest(tcp: RedisTcpSettings) -> Iterator[RedisRestSettings]:
    with gateway(tcp) as settings:
        yield settings


@pytest.fixture(params=["rest", "tcp"])
async def redis(request: pytest.FixtureRequest, tcp: RedisTcpSettings, rest: RedisRestSettings) -> AsyncIterator[Redis]:
    client = RedisRest(rest) if request.param == "rest" else RedisTcp(tcp)
    await client.command("FLUSHALL")
    yield client
    assert await keys_without_ttl(client) == []
    await client.close()


@pytest.fixture
def store(redis: Redis) -> RunStore:
    return RunStore(redis)


@pytest.fixture
def driver(store: RunStore, redis: Redis) -> Driver:
    return Driver(store, redis)
