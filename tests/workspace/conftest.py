"""One real S3 server for all tests of the folder; each test has its own user."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from infra.contract.runs import Brief, RunHead
from infra.contract.states import Status
from infra.settings import S3Settings
from infra.workspace import S3RunFiles, WorkspaceLimits, Workspaces
from infra.workspace.client import build_client
from tests.support.faulty_s3 import FaultyS3, faulty_s3
from tests.support.servers import s3_fixture

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


s3 = s3_fixture("package")
"""S3 server; the fixture `workspaces` creates the bucket."""


@pytest.fixture(scope="package")
def raw(s3: S3Settings, workspaces: Workspaces) -> "Iterator[S3Client]":
    """S3 client for reading and writing objects directly."""
    client = build_client(s3)
    yield client
    client.close()


@pytest.fixture
def user() -> str:
    return f"user-{uuid4().hex}"


@pytest.fixture(scope="package")
def workspaces(s3: S3Settings) -> Iterator[Workspaces]:
    built = Workspaces(s3, WorkspaceLimits(file_bytes=40_000_000, total_bytes=60_000_000, files=400, entries=600))
    asyncio.run(built.ensure_bucket())
    yield built
    built.close()


@pytest.fixture
def proxy(s3: S3Settings) -> Iterator[FaultyS3]:
    """Proxy in front of the S3 server that can inject faults."""
    with faulty_s3(s3) as faulty:
        yield faulty


@pytest.fixture
def through_proxy(proxy: FaultyS3, workspaces: Workspaces) -> Iterator[Workspaces]:
    """Workspaces whose requests pass through the proxy."""
    made = Workspaces(proxy.settings)
    yield made
    proxy.ending.set()  # a request that hangs would block the close
    made.close()


@pytest.fixture
def files(workspaces: Workspaces, user: str) -> S3RunFiles:
    return workspaces.run(user, "run-1", 1, {})


@pytest.fixture
def run(user: str) -> RunHead:
    """Head of the run whose log is archived."""
    return RunHead(
        id="run-1",
        user=user,
        status=Status.RUNNING,
        brief=Brief(title="x"),
        attempt=1,
        seq=1,
        cancel=False,
        created_ms=1_795_000_000_000,
        queued_ms=None,
        started_ms=None,
        finished_ms=None,
        error=None,
        deleting=False,
    )


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[[], dict[str, bytes]]:
    """Function that reads all files of the directory `work`."""

    def read() -> dict[str, bytes]:
        root = tmp_path / "work"
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    return read


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Directory that is synchronised with the store."""
    return tmp_path / "work"
