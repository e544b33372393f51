"""Fixtures: a real Valkey, a real S3 server, and workers in this process, with tools controlled by the tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from infra.settings import RedisTcpSettings, S3Settings
from infra.workspace import Workspaces
from tests.support.redis import OwnValkey
from tests.support.s3 import variables_of
from tests.support.servers import s3_fixture, valkey_fixture
from tests.worker.rig import Rig

tcp = valkey_fixture()


s3 = s3_fixture("package")


@pytest.fixture
async def workspaces(s3: S3Settings) -> AsyncIterator[Workspaces]:
    made = Workspaces(s3)
    await made.ensure_bucket()
    yield made
    await asyncio.to_thread(made.close)


@pytest.fixture
def object_store(s3: S3Settings, workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let worker processes use a bucket: they claim nothing without one."""
    for name, value in variables_of(s3).items():
        monkeypatch.setenv(name, value)


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
    """Rig on a separate Valkey, which the test may stop."""
    made = Rig(server.settings)
    yield made
    await made.close()
