"""Factories of server fixtures. Each conftest assigns the names and has its own servers."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
import pytest_asyncio

from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings, RedisTcpSettings, S3Settings
from infra.workspace import Workspaces
from tests.support.redis import gateway, valkey_server
from tests.support.s3 import s3_server
from tests.support.scripted_http import scripted_connections
from tests.support.web_site import Site

Scope: TypeAlias = Literal["session", "package", "module"]
Fixture: TypeAlias = Callable[..., Any]


def valkey_fixture() -> Fixture:
    """Return a fixture: Valkey for the whole session."""

    @pytest.fixture(scope="session")
    def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisTcpSettings]:
        with valkey_server(tmp_path_factory.mktemp("valkey")) as settings:
            yield settings

    return valkey


def gateway_fixture() -> Fixture:
    """Return a fixture: gateway in front of the Valkey of the fixture `tcp_settings`."""

    @pytest.fixture(scope="session")
    def rest(tcp_settings: RedisTcpSettings) -> Iterator[RedisRestSettings]:
        with gateway(tcp_settings) as settings:
            yield settings

    return rest


def s3_fixture(scope: Scope) -> Fixture:
    """Return a fixture: S3 server."""

    @pytest.fixture(scope=scope)
    def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
        with s3_server(tmp_path_factory.mktemp("s3")) as settings:
            yield settings

    return s3


def workspaces_fixture(scope: Scope) -> Fixture:
    """Return a fixture: workspaces in the bucket of the fixture `s3`."""

    @pytest.fixture(scope=scope)
    def workspaces(s3: S3Settings) -> Iterator[Workspaces]:
        built = Workspaces(s3)
        asyncio.run(built.ensure_bucket())
        yield built
        built.close()

    return workspaces


def connection_fixture() -> Fixture:
    """Return a fixture: connection to the Valkey of the fixture `tcp_settings`, for the whole session."""

    @pytest_asyncio.fixture(scope="session", loop_scope="session")
    async def connection(tcp_settings: RedisTcpSettings) -> AsyncIterator[RedisTcp]:
        redis = RedisTcp(tcp_settings)
        yield redis
        await redis.close()

    return connection


def emptied_fixture() -> Fixture:
    """Return a fixture: the connection of the fixture `connection`, to a database that is empty at first."""

    @pytest_asyncio.fixture(loop_scope="session")
    async def redis(connection: RedisTcp) -> RedisTcp:
        await connection.command("FLUSHALL")
        return connection

    return redis


def web_site_fixture(scope: Scope) -> Fixture:
    """Return a fixture: scripted web site."""

    @pytest.fixture(scope=scope)
    def web() -> Iterator[Site]:
        made = Site()
        with scripted_connections(made.handle, waits_for_answers=False) as made.url:
            yield made

    return web


def items_below(folder: Path, items: Sequence[pytest.Item]) -> Iterator[pytest.Item]:
    """Yield the tests in files of a folder. Compares texts: to compare paths takes a tenth of the collection's time."""
    prefix = f"{folder}{os.sep}"
    return (item for item in items if str(item.path).startswith(prefix))


def on_the_session_loop(test: pytest.Item) -> bool:
    """Run an asynchronous test in the event loop of the session's fixtures; return True if it is asynchronous."""
    is_async = pytest_asyncio.is_async_test(test)
    if is_async:
        test.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    return is_async
