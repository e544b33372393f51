"""Fixtures: the API over real sockets, in front of the real gateway and a real Valkey.

One server and one event loop serve all tests of this folder, because starting them for each test would take most of
the time.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from infra.contract.queue import Lease
from infra.contract.runs import RunSpec
from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings, S3Settings
from infra.workspace import Workspaces
from tests.edge.logs.reading import RUN, ScriptedFeed
from tests.edge.stack import Edge, Files, SimulatedWorker, client, serve
from tests.support import own_gateway as gateways
from tests.support.servers import (
    connection_fixture,
    emptied_fixture,
    gateway_fixture,
    items_below,
    on_the_session_loop,
    s3_fixture,
    valkey_fixture,
)
from tests.support.waiting import until

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items_below(HERE, items):
        on_the_session_loop(item)


tcp_settings = valkey_fixture()
rest_settings = gateway_fixture()
s3_settings = s3_fixture("session")
own_gateway = gateways.own_gateway


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def workspaces(s3_settings: S3Settings) -> AsyncIterator[Workspaces]:
    made = Workspaces(s3_settings)
    await made.ensure_bucket()
    yield made
    await asyncio.to_thread(made.close)


connection = connection_fixture()
redis = emptied_fixture()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_edge(rest_settings: RedisRestSettings) -> AsyncIterator[Edge]:
    async with serve(rest_settings, Files()) as edge:
        yield edge


@pytest.fixture
def worker(redis: RedisTcp) -> SimulatedWorker:
    return SimulatedWorker(redis)


@pytest_asyncio.fixture(loop_scope="session")
async def edge(running_edge: Edge, redis: RedisTcp) -> AsyncIterator[Edge]:
    """The API. At the end of a test no subscription may be open."""
    running_edge.feed.opened = 0
    running_edge.files.deleted.clear()
    yield running_edge

    async def nothing_open() -> bool:
        return running_edge.streams == 0 and running_edge.feed.open == 0

    await until(nothing_open, "streams and subscriptions are closed")


@pytest_asyncio.fixture(loop_scope="session")
async def stored_edge(
    worker: SimulatedWorker, rest_settings: RedisRestSettings, workspaces: Workspaces
) -> AsyncIterator[Edge]:
    """The API in front of a real object store, for one test."""
    async with serve(rest_settings, workspaces) as edge:
        yield edge


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
    """Lease of a running run whose log contains event 1, `run.started`."""
    await worker.store.create(RUN, "ada", RunSpec(prompt="x"), start=True, digest="d")
    return await worker.claim()
