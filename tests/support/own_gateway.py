"""Gateway of one test alone, which may stop it."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from infra.settings import RedisRestSettings, RedisTcpSettings
from tests.support.redis import gateway


class Gateway:
    """Gateway that can be stopped and started again on the same port."""

    def __init__(self, tcp: RedisTcpSettings) -> None:
        self._tcp = tcp
        self._port: int | None = None
        self._running = ExitStack()
        self.settings = replace(self.start(), timeout_s=5)

    def start(self) -> RedisRestSettings:
        settings = self._running.enter_context(gateway(self._tcp, self._port))
        self._port = urlsplit(settings.url).port
        return settings

    def stop(self) -> None:
        self._running.close()


@pytest.fixture
def own_gateway(tcp_settings: RedisTcpSettings) -> Iterator[Gateway]:
    """Run a gateway in front of the Valkey of the fixture `tcp_settings`."""
    own = Gateway(tcp_settings)
    yield own
    own.stop()
