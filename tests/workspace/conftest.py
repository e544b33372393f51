"""One real S3 server for all tests of the folder; each test has a user of its own."""

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
from tests.support.servers import s3_fixture

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


s3 = s3_fixture("package")
"""The server; the bucket comes with `workspaces`."""


@pytest.fixture(scope="package")
def raw(s3: S3Settings, workspaces: Workspaces) -> "Iterator[S3Client]":
    """A client that goes past the product, to look at the bucket and to put into it what the product never would."""
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
def files(workspaces: Workspaces, user: str) -> S3RunFiles:
    return workspaces.run(user, "run-1", 1, {})


@pytest.fixture
def run(user: str) -> RunHead:
    """Whose log is stored."""
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
    """Reads all files of the workspace's directory."""

    def read() -> dict[str, bytes]:
        root = tmp_path / "work"
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    return read


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The directory that is kept in step with the store."""
    return tmp_path / "work"
