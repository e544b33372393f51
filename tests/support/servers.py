"""Factories of server fixtures. Each conftest assigns the names and has its own servers."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import pytest
import pytest_asyncio

from infra.settings import RedisRestSettings, RedisTcpSettings, S3Settings
from tests.support.redis import gateway, valkey_server
from tests.support.s3 import s3_server

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


def on_the_session_loop(test: pytest.Item) -> bool:
    """Run an asynchronous test in the event loop of the session's fixtures; return True if it is asynchronous."""
    is_async = pytest_asyncio.is_async_test(test)
    if is_async:
        test.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    return is_async
