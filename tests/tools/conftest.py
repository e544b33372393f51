"""Fixtures: one real S3 server for all tests of the folder, one run for each test."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from infra.local_executor import LocalExecutor
from infra.scratch_root import ScratchRoot
from infra.workspace import WorkspaceLimits, Workspaces
from tests.support.s3 import s3_server
from tests.tools.kit import Kit
from worker.workspaces import RunFiles

FILE_BYTES = 20_000_000
FILES = 600
ENTRIES = 700


@pytest.fixture(scope="package")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspaces]:
    with s3_server(tmp_path_factory.mktemp("seaweed")) as settings:
        limits = WorkspaceLimits(file_bytes=FILE_BYTES, total_bytes=30_000_000, files=FILES, entries=ENTRIES)
        built = Workspaces(settings, limits)
        asyncio.run(built.ensure_bucket())
        yield built
        built.close()


@pytest.fixture
def files(workspaces: Workspaces) -> RunFiles:
    return workspaces.run(f"user-{uuid4().hex}", "run-1", 1, {})


@pytest.fixture
def kit(files: RunFiles, tmp_path: Path) -> Iterator[Kit]:
    scratch = tmp_path / "scratch"
    executor = LocalExecutor(ScratchRoot(scratch))
    yield Kit(files, executor, scratch)
    executor.close()
    subprocess.run(["/bin/rm", "-rf", str(scratch)], check=True)
