"""A real browser, and what stands behind an API: the real gateway and a real Valkey."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings, RedisTcpSettings
from tests.browser.browser import Browser
from tests.edge.stack import SimulatedWorker
from tests.support.redis import gateway, valkey_server

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(reason="there is no program `chromium`; install Debian's package of that name")
    for item in items:
        if HERE not in item.path.parents:
            continue
        if pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            if shutil.which("chromium") is None:
                item.add_marker(missing)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with Browser() as running:
        yield running


@pytest.fixture(scope="session")
def tcp_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisTcpSettings]:
    with valkey_server(tmp_path_factory.mktemp("valkey")) as settings:
        yield settings


@pytest.fixture(scope="session")
def rest_settings(tcp_settings: RedisTcpSettings) -> Iterator[RedisRestSettings]:
    with gateway(tcp_settings) as settings:
        yield settings


@pytest_asyncio.fixture(loop_scope="session")
async def worker(tcp_settings: RedisTcpSettings) -> AsyncIterator[SimulatedWorker]:
    """It begins with an empty database."""
    redis = RedisTcp(tcp_settings)
    await redis.command("FLUSHALL")
    yield SimulatedWorker(redis)
    await redis.close()
