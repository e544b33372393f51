"""The data folder: its lock, its credentials, its ports, who may read it."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections import namedtuple
from dataclasses import astuple
from pathlib import Path

import msgspec
import pytest

from infra.devstack import credentials, s3_server
from infra.devstack import port_numbers as ports
from infra.devstack.data_dir import FolderLock, Layout, write_private
from infra.devstack.errors import StackError

Usage = namedtuple("Usage", "total used free")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_may_look_into_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "new" / "data")
    layout.create()
    assert {mode(folder) for folder in (layout.root, layout.logs, layout.redis, layout.s3)} == {0o700}


def test_the_rights_of_a_folder_that_was_there_are_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Layout(tmp_path).create()
    assert mode(tmp_path) == 0o755


def test_a_full_disk_is_said_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 << 30, 100 << 30, 12 << 20))
    with pytest.raises(StackError, match=r"the disk of .* is full: 12 MB are free, 1024 MB are needed"):
        Layout(tmp_path).create()


def test_a_secret_is_never_readable_by_others_nor_half_written(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_credentials_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    made = credentials.load_or_create(path)
    assert credentials.load_or_create(path) == made
    assert credentials.load_or_create(tmp_path / "other.json") != made
    assert mode(path) == 0o600
    assert made.api_token not in repr(made)
    assert min(len(made.redis_password), len(made.stream_token_key)) >= 32


def test_what_the_credentials_of_an_earlier_release_lack_is_made_once(tmp_path: Path) -> None:
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


def test_a_second_stack_is_refused_at_once_and_told_who_has_the_folder(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    lock = FolderLock(layout)
    with pytest.raises(StackError, match=rf"is in use by another stack \(process {os.getpid()}\)$"):
        FolderLock(layout)
    lock.release()
    FolderLock(layout).release()


def test_the_lock_waits_for_the_children_of_a_stack_that_was_killed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    lock = FolderLock(layout)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with subprocess.Popen(["sleep", "0.3"], pass_fds=[lock.descriptor]) as child:
        os.pwrite(lock.descriptor, f"{gone.pid:<20}".encode(), 0)
        lock.release()
        second = FolderLock(layout)
        assert child.poll() is not None
        second.release()
    assert layout.lock.read_text() == str(os.getpid())


def test_ports_of_the_last_start_are_kept_while_they_are_free() -> None:
    first = ports.choose(None, 0)
    assert len(first.all()) == 11
    assert ports.choose(first, 0) == first
    with socket.socket() as taken:
        taken.bind((ports.HOST, first.gateway))
        taken.listen()
        second = ports.choose(first, 0)
    assert second.gateway != first.gateway
    assert (second.redis, second.api, second.s3) == (first.redis, first.api, first.s3)


def test_the_s3_server_moves_as_a_whole() -> None:
    first = ports.choose(None, 0)
    with socket.socket() as taken:
        taken.bind((ports.HOST, first.s3.filer))
        taken.listen()
        second = ports.choose(first, 0)
    assert not {*astuple(second.s3)} & {first.s3.filer}
    assert second.redis == first.redis


def test_a_wanted_port_that_is_taken_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind((ports.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is taken; choose another one with --port"):
            ports.choose(None, port)


def test_no_part_gets_the_port_that_is_wanted_for_the_api() -> None:
    last = ports.Ports(redis=20_001, gateway=20_002, api=20_003, s3=s3_server.pick_ports())
    chosen = ports.choose(last, 20_002)
    assert chosen.api == 20_002
    assert chosen.gateway != 20_002


@pytest.mark.parametrize("content", ["", "{}", '{"redis": "x"}'])
def test_damaged_ports_are_chosen_again(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ports.json"
    assert ports.remembered(path) is None
    path.write_text(content)
    assert ports.remembered(path) is None
