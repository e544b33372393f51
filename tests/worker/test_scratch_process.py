"""Scratch folders of worker processes: removed at a clean exit, or by the next worker after a kill."""

import signal
from pathlib import Path

import pytest

from tests.support.redis import OwnValkey
from tests.support.waiting import wait_until
from tests.worker.rig import Rig
from tests.worker.test_health_process import GENEROUS_S, watched

pytestmark = pytest.mark.usefixtures("object_store")


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


async def test_a_worker_that_exits_cleanly_leaves_no_folder(own: Rig, server: OwnValkey, tmp_path: Path) -> None:
    async with watched("worker", server.settings, tmp_path, WORKER_NAME="w-1") as worker:
        assert folders(tmp_path / "work") == ["w-1"]
        worker.process.end(signal.SIGTERM, GENEROUS_S)
        assert worker.process.exit_code() == 0
    assert folders(tmp_path / "work") == []


async def test_the_next_worker_removes_only_the_folders_of_killed_workers(
    own: Rig, server: OwnValkey, tmp_path: Path
) -> None:
    root = tmp_path / "work"
    cwds = [tmp_path / name for name in ("killed", "living", "next")]
    for cwd in cwds:
        cwd.mkdir()
    killed, living, last = cwds
    async with watched("worker", server.settings, living, WORKER_ROOT=str(root)):
        (lives,) = folders(root)
        for _ in range(2):
            async with watched("worker", server.settings, killed, WORKER_ROOT=str(root)) as worker:
                (killed / "worker.log").write_text("")
                worker.process.end(signal.SIGKILL)
        (left,) = {*folders(root)} - {lives}
        async with watched("worker", server.settings, last, WORKER_ROOT=str(root)) as worker:
            found = folders(root)
            assert lives in found
            assert left not in found
            assert len(found) == 2
            assert "scratch.removed" in worker.process.log()
            worker.process.end(signal.SIGTERM, GENEROUS_S)
        wait_until(lambda: folders(root) == [lives], "only the folder of the living worker remains")
