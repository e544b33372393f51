"""Data folder of a stack: its lock, credentials and permissions."""

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import msgspec
import pytest

from infra.devstack import credentials
from infra.devstack.data_dir import DataDir, DataDirLock, write_private
from infra.devstack.errors import StackError

Usage = namedtuple("Usage", "total used free")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_data_folder_is_closed_to_other_users(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path / "new" / "data")
    data_dir.create()
    assert {mode(folder) for folder in (data_dir.root, data_dir.logs, data_dir.redis, data_dir.s3)} == {0o700}


def test_the_permissions_of_an_existing_folder_stay(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    DataDir(tmp_path).create()
    assert mode(tmp_path) == 0o755


@pytest.mark.parametrize("name", ["work", "logs"])
def test_a_folder_that_holds_what_is_not_of_a_stack_is_refused(tmp_path: Path, name: str) -> None:
    # The stack would remove them, such as those of a project.
    (tmp_path / name).mkdir()
    for _ in range(2):
        with pytest.raises(StackError, match=f"holds '{name}', which is not of a stack; use another folder"):
            DataDir(tmp_path).create()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_of_a_stack_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = DataDir(tmp_path)
    (tmp_path / "test.env").touch()  # a profile of the user, as `demo` is a folder of the demo
    (tmp_path / "demo").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Usage(100 << 30, 100 << 30, 0))
        with pytest.raises(StackError, match="is full"):
            data_dir.create()
    data_dir.create()
    data_dir.redis_config.touch()
    data_dir.lock.unlink()  # by a user after a crash
    data_dir.create()


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 << 30, 100 << 30, 12 << 20))
    with pytest.raises(StackError, match=r"the disk of .* is full: 12 MB are free, 1024 MB are needed"):
        DataDir(tmp_path).create()


def test_a_secret_file_is_replaced_and_closed_to_other_users(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_credentials_are_generated_once(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    made = credentials.load_or_create(path)
    assert credentials.load_or_create(path) == made
    assert credentials.load_or_create(tmp_path / "other.json") != made
    assert mode(path) == 0o600
    assert made.api_token not in repr(made)
    assert min(len(made.redis_password), len(made.stream_token_key)) >= 32


def test_credentials_of_an_earlier_release_are_completed_once(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    made = credentials.load_or_create(path)
    earlier = {name: value for name, value in msgspec.to_builtins(made).items() if name != "stream_token_key"}
    path.write_bytes(msgspec.json.encode(earlier))
    later = credentials.load_or_create(path)
    assert later == msgspec.structs.replace(made, stream_token_key=later.stream_token_key)
    assert later.stream_token_key != made.stream_token_key
    assert credentials.load_or_create(path) == later
    assert mode(path) == 0o600


def test_damaged_credentials_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    path.write_text('{"redis_password": "x"')
    with pytest.raises(StackError, match="is damaged"):
        credentials.load_or_create(path)
    assert path.read_text() == '{"redis_password": "x"'


def test_a_second_stack_is_refused_with_the_process_id_of_the_first(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    lock = DataDirLock(data_dir)
    with pytest.raises(StackError, match=rf"is in use by another stack \(process {os.getpid()}\)$"):
        DataDirLock(data_dir)
    lock.release()
    DataDirLock(data_dir).release()


def test_the_lock_waits_for_the_children_of_a_killed_stack(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    lock = DataDirLock(data_dir)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ending = threading.Event()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.descriptor]) as child:

        def end_child() -> None:
            ending.set()
            assert child.stdin
            child.stdin.close()

        os.pwrite(lock.descriptor, f"{dead.pid:<20}".encode(), 0)
        lock.release()
        threading.Timer(0.3, end_child).start()
        second = DataDirLock(data_dir)
        assert ending.is_set()
        second.release()
    assert data_dir.lock.read_text() == str(os.getpid())
