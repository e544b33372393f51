"""Scratch folders that are removed while the worker lives, as by cleaners of temporary files: no run fails for it."""

import os
import shutil
from pathlib import Path

import pytest

from infra.contract.errors import ExecutorUnavailable
from infra.folders import try_lock
from infra.local_executor import LocalExecutor
from infra.scratch_root import LOCK, ScratchRoot
from tests.local_executor.rig import RUN_ID, Bench


@pytest.mark.parametrize("what", ["", RUN_ID])
async def test_a_run_is_given_back_and_the_next_check_creates_the_folder_again(bench: Bench, what: str) -> None:
    assert (await bench.run("echo one")).out == "one\n"
    shutil.rmtree(bench.root / what)

    if what == "":
        with pytest.raises(ExecutorUnavailable, match="WORKER_ROOT"):
            await bench.run("echo two")
    await bench.executor.check()

    assert (await bench.run("echo three")).out == "three\n"
    assert try_lock(bench.root / LOCK, create=False) is None


async def test_a_run_whose_workspace_is_removed_under_its_program_has_not_deleted_its_files(bench: Bench) -> None:
    def remove(_stream: str, _line: str) -> None:
        shutil.rmtree(bench.root / RUN_ID)

    with pytest.raises(ExecutorUnavailable, match="WORKER_ROOT"):
        await bench.run("echo one", on_line=remove)

    assert bench.files.stored == 0


async def test_the_name_of_the_process_is_written_again(tmp_path: Path) -> None:
    scratch = ScratchRoot(tmp_path / "root" / "w")
    executor, lock_fd = LocalExecutor(scratch), scratch.lock_fd
    shutil.rmtree(tmp_path / "root")

    await executor.check()

    assert (scratch.folder / LOCK).read_text() == f"{scratch.process}\n"
    assert scratch.lock_fd == lock_fd
    assert not os.get_inheritable(lock_fd)
    executor.close()
    assert not scratch.folder.exists()


async def test_a_folder_that_another_worker_has_taken_is_left_to_it(tmp_path: Path) -> None:
    first = LocalExecutor(ScratchRoot(tmp_path / "w"))
    shutil.rmtree(tmp_path / "w")
    second = LocalExecutor(ScratchRoot(tmp_path / "w"))

    with pytest.raises(ExecutorUnavailable, match="in use by another worker"):
        await first.check()

    first.close()
    await second.check()
    second.close()
