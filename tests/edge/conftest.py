"""The API over real sockets, in front of the real gateway and a real Valkey.

One server and one event loop serve all tests of this folder: starting and stopping them would take most of the time.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from infra.contract.models import RunSpec
from infra.contract.store import Lease
from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings, RedisTcpSettings
from tests.edge.reading import RUN, ScriptedFeed
from tests.edge.stack import Edge, Files, SimulatedWorker, client, serve
from tests.support.redis import gateway, valkey_server
from tests.support.waiting import until

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def tcp_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisTcpSettings]:
    with valkey_server(tmp_path_factory.mktemp("valkey")) as settings:
        yield settings


@pytest.fixture(scope="session")
def rest_settings(tcp_settings: RedisTcpSettings) -> Iterator[RedisRestSettings]:
    with gateway(tcp_settings) as settings:
        yield settings


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def connection(tcp_settings: RedisTcpSettings) -> AsyncIterator[RedisTcp]:
    redis = RedisTcp(tcp_settings)
    yield redis
    await redis.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_edge(rest_settings: RedisRestSettings) -> AsyncIterator[Edge]:
    async with serve(rest_settings, Files()) as edge:
        yield edge


@pytest_asyncio.fixture(loop_scope="session")
async def redis(connection: RedisTcp) -> RedisTcp:
    """A way into the database past the API; it begins empty."""
    await connection.command("FLUSHALL")
    return connection


@pytest.fixture
def worker(redis: RedisTcp) -> SimulatedWorker:
    return SimulatedWorker(redis)


@pytest_asyncio.fixture(loop_scope="session")
async def edge(running_edge: Edge, redis: RedisTcp) -> AsyncIterator[Edge]:
    """The API; in the end nobody may still be subscribed."""
    running_edge.feed.opened = 0
    running_edge.files.deleted.clear()
    yield running_edge

    async def nothing_open() -> bool:
        return running_edge.streams == 0 and running_edge.feed.open == 0

    await until(nothing_open, "streams and subscriptions are closed")


@pytest.fixture
def files(edge: Edge) -> Files:
    files: Files = edge.files
    return files


@pytest_asyncio.fixture(loop_scope="session")
async def ada(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with client(edge, "ada") as http:
        yield http


@pytest_asyncio.fixture(loop_scope="session")
async def bob(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with client(edge, "bob") as http:
        yield http


@pytest.fixture
def feed() -> ScriptedFeed:
    return ScriptedFeed()


@pytest_asyncio.fixture(loop_scope="session")
async def lease(worker: SimulatedWorker) -> Lease:
    """A running run whose log holds its event 1, `run.started`."""
    await worker.store.create(RUN, "ada", RunSpec(prompt="x"), start=True, digest="d")
    return await worker.claim()
