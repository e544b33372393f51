"""Executors under one suite: the sandbox on this host, and the runner of a pod with a real object store."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from infra.local_executor import LocalExecutor
from infra.pod_runner import archive
from infra.scratch_root import ScratchRoot
from infra.workspace import S3RunFiles, Workspaces
from tests.executors.pods import PodExecutor, Pods
from tests.local_executor.rig import Bench
from tests.support.processes import children_of
from tests.support.servers import s3_fixture, workspaces_fixture
from tests.support.waiting import wait_until

s3 = s3_fixture("package")


workspaces = workspaces_fixture("package")


@pytest.fixture(scope="package")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archive of the runner."""
    target = tmp_path_factory.mktemp("runner") / "runner.pyz"
    archive.write(target)
    return target


@pytest.fixture
def files(workspaces: Workspaces) -> S3RunFiles:
    """Workspace of a new run."""
    return workspaces.run(f"user-{uuid4().hex}", "run-1", 3, {})


@pytest.fixture
def pods(tmp_path: Path, runner: Path) -> Pods:
    return Pods(tmp_path / "pods", runner)


@pytest.fixture(params=["local", "pod"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Bench of each executor. No process of a test outlives it."""
    if request.param == "local":
        made = Bench(LocalExecutor(ScratchRoot(tmp_path / "scratch")), tmp_path / "scratch")
    else:
        workspaces, user = request.getfixturevalue("workspaces"), f"user-{uuid4().hex}"
        (tmp_path / "output").mkdir()

        def files_of(run_id: str) -> S3RunFiles:
            files: S3RunFiles = workspaces.run(user, run_id, 1, {})
            return files

        made = Bench(PodExecutor(request.getfixturevalue("pods"), files_of, tmp_path / "output"), tmp_path)
    before = children_of(os.getpid())
    yield made
    made.executor.close()
    wait_until(lambda: not made.alive(), "no process of the test is left")
    assert children_of(os.getpid()) <= before
    shutil.rmtree(tmp_path, ignore_errors=True)
