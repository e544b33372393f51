"""Fixtures: a real browser, and the servers behind an API: a real gateway and a real Valkey."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.browser.browser import Browser, program
from tests.edge.stack import SimulatedWorker
from tests.support import own_gateway as gateways
from tests.support.servers import gateway_fixture, items_below, on_the_session_loop, valkey_fixture

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(reason="the program `chromium` is missing; install the Debian package `chromium`")
    for item in items_below(HERE, items):
        if on_the_session_loop(item) and program() is None:
            item.add_marker(missing)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with Browser() as running:
        yield running


tcp_settings = valkey_fixture()
rest_settings = gateway_fixture()
own_gateway = gateways.own_gateway


@pytest_asyncio.fixture(loop_scope="session")
async def worker(tcp_settings: RedisTcpSettings) -> AsyncIterator[SimulatedWorker]:
    """Simulated worker, with an empty database."""
    redis = RedisTcp(tcp_settings)
    await redis.command("FLUSHALL")
    yield SimulatedWorker(redis)
    await redis.close()
