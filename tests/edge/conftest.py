"""The API over real sockets, in front of the real gateway, a real Valkey and a real object store."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings, RedisTcpSettings
from tests.edge.stack import Edge, Files, SimulatedWorker, client, serve
from tests.support.redis import gateway, valkey_server


@pytest.fixture(scope="session")
def tcp_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisTcpSettings]:
    with valkey_server(tmp_path_factory.mktemp("valkey")) as settings:
        yield settings


@pytest.fixture(scope="session")
def rest_settings(tcp_settings: RedisTcpSettings) -> Iterator[RedisRestSettings]:
    with gateway(tcp_settings) as settings:
        yield settings


@pytest.fixture
async def redis(tcp_settings: RedisTcpSettings) -> AsyncIterator[RedisTcp]:
    """A way into the database past the API; it begins empty."""
    redis = RedisTcp(tcp_settings)
    await redis.command("FLUSHALL")
    yield redis
    await redis.close()


@pytest.fixture
def worker(redis: RedisTcp) -> SimulatedWorker:
    return SimulatedWorker(redis)


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
async def edge(redis: RedisTcp, rest_settings: RedisRestSettings, files: Files) -> AsyncIterator[Edge]:
    async with serve(rest_settings, files) as edge:
        yield edge


@pytest.fixture
async def ada(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with client(edge, "ada") as http:
        yield http


@pytest.fixture
async def bob(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with client(edge, "bob") as http:
        yield http
