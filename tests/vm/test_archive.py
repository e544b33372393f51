"""Backups of a machine: complete, private, and refused if they are damaged or made by somebody else."""

import io
import json
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from deploy.vm import archive
from deploy.vm.backups import Folder
from deploy.vm.machine import VmError
from tests.support.redis import free_port, valkey_server


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Return a folder with settings."""
    folder = tmp_path / "etc"
    (folder / "generated").mkdir(parents=True)
    (folder / "generated" / "api.env").write_text("A=1\n")
    (folder / "secrets.json").write_text("{}\n")
    (folder / "shared.env").write_text("S3_BUCKET=b\n")
    return folder


def test_a_backup_has_the_snapshot_and_the_settings_and_only_its_owner_can_read_it(
    settings: Path, tmp_path: Path
) -> None:
    target = tmp_path / "backup.tar"
    (tmp_path / "data").mkdir()
    with valkey_server(tmp_path / "data") as valkey:
        archive.create(target, valkey.url, settings, "files-of-the-runs")
    assert target.stat().st_mode & 0o077 == 0
    assert archive.unpack(target, tmp_path / "content") == "files-of-the-runs"
    found = {str(path.relative_to(tmp_path / "content")) for path in (tmp_path / "content").rglob("*")}
    assert found == {"valkey.rdb", "settings", "settings/secrets.json", "settings/shared.env"}
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "content").rglob("*")} == {0}
    assert [path.name for path in tmp_path.glob("backup*")] == ["backup.tar"]


def test_without_valkey_there_is_no_backup_and_nothing_is_left(settings: Path, tmp_path: Path) -> None:
    with pytest.raises(VmError, match="no snapshot: the server of REDIS_URL cannot be reached"):
        archive.create(tmp_path / "backup.tar", f"redis://127.0.0.1:{free_port()}", settings, "b")
    assert list(tmp_path.glob("backup*")) == []


def written(path: Path, members: dict[str, bytes], change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Write a backup with these members, and a list of them that a function changes."""
    listed = {"format": 1, "bucket": "b", "sha256": {name: sha256(data).hexdigest() for name, data in members.items()}}
    change(listed)
    with tarfile.open(path, "w") as tar:
        for name, data in {"list.json": json.dumps(listed).encode(), **members}.items():
            head = tarfile.TarInfo(name)
            head.size = len(data)
            tar.addfile(head, io.BytesIO(data))


GOOD = {"valkey.rdb": b"REDIS", "settings/secrets.json": b"{}"}


@pytest.mark.parametrize(
    ("members", "change", "message"),
    [
        (GOOD, lambda listed: listed["sha256"].update({"valkey.rdb": "0" * 64}), "its SHA-256 is another one"),
        (GOOD, lambda listed: listed["sha256"].update({"settings/web.env": "0" * 64}), "settings/web.env is missing"),
        (GOOD, lambda listed: listed["sha256"].pop("valkey.rdb"), "an entry that is not in its list"),
        (GOOD, lambda listed: listed.update(format=2), "made by a newer release"),
        (GOOD, lambda listed: listed.pop("sha256"), "no backup of a machine"),
        ({**GOOD, "settings/../../evil": b""}, lambda _: None, "no backup of a machine"),
        ({**GOOD, "/etc/passwd": b""}, lambda _: None, "no backup of a machine"),
    ],
)
def test_a_backup_that_is_not_as_it_was_made_is_refused(
    tmp_path: Path, members: dict[str, bytes], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    written(tmp_path / "backup.tar", members, change)
    with pytest.raises(VmError, match=message):
        archive.unpack(tmp_path / "backup.tar", tmp_path / "content")
    assert {path.name for path in tmp_path.iterdir()} <= {"backup.tar", "content"}


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "whole.tar", GOOD)
    (tmp_path / "cut.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:1200])
    with pytest.raises(VmError, match="damaged"):
        archive.unpack(tmp_path / "cut.tar", tmp_path / "content")


def test_a_link_in_a_backup_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "backup.tar", "w") as tar:
        text = json.dumps({"format": 1, "bucket": "b", "sha256": {"settings/web.env": "0" * 64}}).encode()
        head = tarfile.TarInfo("list.json")
        head.size = len(text)
        tar.addfile(head, io.BytesIO(text))
        link = tarfile.TarInfo("settings/web.env")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(VmError, match="an entry that is not in its list"):
        archive.unpack(tmp_path / "backup.tar", tmp_path / "content")


def test_a_folder_keeps_the_newest_backups_and_gives_them_back(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "notes.tar").write_text("not ours")
    place = Folder(folder)
    names = []
    for number in range(4):
        (folder / "unfinished.tar").write_text(str(number))
        names.append(place.store(folder / "unfinished.tar"))
    place.prune(2)
    assert sorted(path.name for path in folder.iterdir()) == [*(f"{name}.tar" for name in names[2:]), "notes.tar"]
    assert place.fetch(None, tmp_path / "found") == names[3]
    assert place.fetch(names[2], tmp_path / "found") == names[2]
    assert (tmp_path / "found").read_text() == "2"
    for name in (names[0], "../notes", "notes"):
        with pytest.raises(VmError, match="there is no backup"):
            place.fetch(name, tmp_path / "found")
