from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.support import READONLY_TOKEN, Served, Valkey, serve


@pytest.fixture(scope="session")
def running_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path_factory.mktemp("valkey")).start()
    yield valkey
    valkey.kill()


@pytest.fixture(scope="session")
def running_gateway(running_valkey: Valkey) -> Iterator[Served]:
    with serve(running_valkey.url) as served:
        yield served


@pytest.fixture
def valkey(running_valkey: Valkey) -> Valkey:
    """Shared Valkey without any keys."""
    with running_valkey.client() as client:
        client.flushall()
    return running_valkey


@pytest.fixture
def served(running_gateway: Served, valkey: Valkey) -> Served:
    return running_gateway


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture
def readonly(served: Served) -> Iterator[httpx.Client]:
    with served.client(READONLY_TOKEN) as client:
        yield client


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """Valkey of one test, which may kill and restart it."""
    valkey = Valkey(tmp_path).start()
    yield valkey
    valkey.kill()
