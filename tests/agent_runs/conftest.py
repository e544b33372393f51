"""Fixtures: a real Valkey, a real S3 server, the sandbox, a scripted model endpoint, and workers in this process."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from infra.local_executor import LocalExecutor
from infra.scratch_root import ScratchRoot
from infra.settings import RedisTcpSettings, S3Settings
from infra.workspace import Workspaces
from tests.agent_runs.site import AgentSite
from tests.support.model_server import ModelServer, model_server
from tests.support.servers import s3_fixture, valkey_fixture
from tests.worker.rig import Rig

tcp = valkey_fixture()
s3 = s3_fixture("package")


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with model_server() as made:
        yield made


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExecutor]:
    folder = tmp_path_factory.mktemp("scratch")
    executor = LocalExecutor(ScratchRoot(folder / "root"))
    yield executor
    executor.close()
    subprocess.run(["/bin/rm", "-rf", str(folder)], check=True)


@pytest.fixture
async def site(
    tcp: RedisTcpSettings, s3: S3Settings, scratch: LocalExecutor, server: ModelServer
) -> AsyncIterator[AgentSite]:
    workspaces = Workspaces(s3)
    await workspaces.ensure_bucket()
    rig = Rig(tcp)
    await rig.redis.command("FLUSHALL")
    server.requests.clear()
    server.answers.clear()
    made = AgentSite(rig, workspaces, scratch, server)
    yield made
    await rig.close()
    await made.close()
    await asyncio.to_thread(workspaces.close)
