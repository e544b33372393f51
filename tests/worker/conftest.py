"""A real Valkey and workers in this process, with tools that the tests hold in their hands."""

from collections.abc import AsyncIterator, Iterator

import pytest

from infra.settings import RedisTcpSettings
from tests.support.redis import valkey_server
from tests.worker.rig import Rig


@pytest.fixture(scope="session")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisTcpSettings]:
    with valkey_server(tmp_path_factory.mktemp("valkey")) as settings:
        yield settings


@pytest.fixture
async def rig(tcp: RedisTcpSettings) -> AsyncIterator[Rig]:
    rig = Rig(tcp)
    await rig.redis.command("FLUSHALL")
    yield rig
    await rig.close()
