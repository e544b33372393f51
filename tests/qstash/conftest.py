"""Fixtures: the stand-in and a destination in the process of the tests, over a real Valkey; the SDK as client."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from qstash import AsyncQStash

from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.support.qstash import Destination, NastyTransport, destination, sdk, stand_in, stand_in_settings
from tests.support.servers import connection_fixture, emptied_fixture, items_below, on_the_session_loop, valkey_fixture

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items_below(HERE, items):
        on_the_session_loop(item)


tcp_settings = valkey_fixture()


connection = connection_fixture()
redis = emptied_fixture()


@pytest.fixture
def network() -> NastyTransport:
    """Deliveries of the stand-in; a test appends faults."""
    return NastyTransport()


@pytest_asyncio.fixture(loop_scope="session")
async def stand_in_url(redis: RedisTcp, tcp_settings: RedisTcpSettings, network: NastyTransport) -> AsyncIterator[str]:
    async with stand_in(stand_in_settings(tcp_settings, max_messages=50, max_schedules=5), network) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def qstash(stand_in_url: str) -> AsyncIterator[AsyncQStash]:
    async with sdk(stand_in_url) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def target() -> AsyncIterator[Destination]:
    async with destination() as made:
        yield made
