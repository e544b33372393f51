"""Lambda functions in separate processes, in front of a real gateway and a real Valkey, each with a function URL."""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio
from msgspec import json

from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings
from tests.edge.stack import KEYS, SimulatedWorker
from tests.lambdas.environment import Environment, environment
from tests.lambdas.function_url import FunctionUrl, function_url
from tests.support.servers import (
    connection_fixture,
    emptied_fixture,
    gateway_fixture,
    items_below,
    on_the_session_loop,
    valkey_fixture,
)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STREAMING = [str(ROOT / "edge_api" / "stream-wrapper"), sys.executable, "/var/runtime/bootstrap.py"]
POLLING = [sys.executable, "-m", "awslambdaric", "edge_api.handler.handler"]


class Start(Protocol):
    """Create an execution environment for a command, with variables in addition to those of the function."""

    def __call__(
        self, command: list[str], timeout_s: float = 60, **variables: str
    ) -> AbstractAsyncContextManager[Environment]: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items_below(HERE, items):
        on_the_session_loop(item)


tcp_settings = valkey_fixture()
rest_settings = gateway_fixture()


@pytest.fixture(scope="session")
def variables(rest_settings: RedisRestSettings) -> Mapping[str, str]:
    """The environment variables of a function."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "LAMBDA_TASK_ROOT": str(ROOT),
        "UPSTASH_REDIS_REST_URL": rest_settings.url,
        "UPSTASH_REDIS_REST_TOKEN": rest_settings.token,
        "S3_ACCESS_KEY": "a",
        "S3_SECRET_KEY": "s",
        "SWISSBRAIN_API_KEYS": json.encode(KEYS).decode(),
    }


@pytest.fixture(scope="session")
def start(variables: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Start:
    folder, numbers = tmp_path_factory.mktemp("functions"), count()

    def make(command: list[str], timeout_s: float = 60, **changes: str) -> AbstractAsyncContextManager[Environment]:
        return environment(command, {**variables, **changes}, folder / f"{next(numbers)}.log", timeout_s)

    return make


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def streaming(start: Start) -> AsyncIterator[FunctionUrl]:
    """The function whose responses stream."""
    async with function_url(lambda: start(STREAMING)) as front:
        yield front


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def polling(start: Start) -> AsyncIterator[FunctionUrl]:
    """The function under Lambda's own runtime, which responds to polls."""
    async with function_url(lambda: start(POLLING, EDGE_LOG_MODE="longpoll")) as front:
        yield front


@pytest.fixture(params=["streaming", "polling"])
def front(request: pytest.FixtureRequest, streaming: FunctionUrl, polling: FunctionUrl) -> FunctionUrl:
    """Each of the two functions in turn."""
    return {"streaming": streaming, "polling": polling}[request.param]


connection = connection_fixture()
redis = emptied_fixture()


@pytest.fixture
def worker(redis: RedisTcp) -> SimulatedWorker:
    return SimulatedWorker(redis)
