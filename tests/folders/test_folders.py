"""Locks on files in folders, and removal of folders that programs have filled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.folders import empty_folder, remove_tree, try_lock

DIG = "import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')\nopen('file', 'w').close()"


def test_a_locked_file_cannot_be_locked_again(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "lock", create=True)
    assert lock is not None
    assert try_lock(tmp_path / "lock", create=True) is None
    os.close(lock)
    again = try_lock(tmp_path / "lock", create=False)
    assert again is not None
    os.close(again)


def test_a_child_that_inherits_the_descriptor_holds_the_lock(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "lock", create=True)
    assert lock is not None
    with subprocess.Popen(["sleep", "600"], pass_fds=[lock]) as child:
        os.close(lock)
        assert try_lock(tmp_path / "lock", create=True) is None
        child.kill()
    free = try_lock(tmp_path / "lock", create=True)
    assert free is not None
    os.close(free)


def test_a_missing_file_is_locked_only_if_it_may_be_created(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        try_lock(tmp_path / "lock", create=False)
    assert not (tmp_path / "lock").exists()


def test_a_link_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        try_lock(tmp_path / "link", create=True)
    assert not (tmp_path / "elsewhere").exists()


def test_folders_deeper_than_stack_and_descriptors_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    subprocess.run([sys.executable, "-c", DIG], cwd=folder, check=True)
    remove_tree(folder)
    assert not folder.exists()


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "link").symlink_to(outside)
    (tmp_path / "link").symlink_to(outside)
    for path in (tmp_path / "folder", tmp_path / "link", tmp_path / "missing"):
        remove_tree(path)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "file").exists()


def test_a_folder_is_emptied_except_for_one_file(tmp_path: Path) -> None:
    (tmp_path / "keep").touch()
    (tmp_path / "file").touch()
    (tmp_path / "inner" / "keep").mkdir(parents=True)
    empty_folder(tmp_path, keep="keep")
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
