"""A real Valkey, a real S3 server, and workers in this process, with tools that the tests hold in their hands."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from infra.settings import RedisTcpSettings, S3Settings
from infra.workspace import Workspaces
from tests.support.redis import OwnValkey, valkey_server
from tests.support.s3 import s3_server
from tests.worker.rig import Rig


@pytest.fixture(scope="session")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisTcpSettings]:
    with valkey_server(tmp_path_factory.mktemp("valkey")) as settings:
        yield settings


@pytest.fixture(scope="package")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
    with s3_server(tmp_path_factory.mktemp("s3")) as settings:
        yield settings


@pytest.fixture
async def workspaces(s3: S3Settings) -> AsyncIterator[Workspaces]:
    made = Workspaces(s3)
    await made.ensure_bucket()
    yield made
    await asyncio.to_thread(made.close)


@pytest.fixture
async def rig(tcp: RedisTcpSettings) -> AsyncIterator[Rig]:
    rig = Rig(tcp)
    await rig.redis.command("FLUSHALL")
    yield rig
    await rig.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnValkey]:
    made = OwnValkey(tmp_path)
    yield made
    made.stop()


@pytest.fixture
async def own(server: OwnValkey) -> AsyncIterator[Rig]:
    """A rig on a Valkey of its own."""
    made = Rig(server.settings)
    yield made
    await made.close()
