"""Modification times, permissions and empty folders: a directory made elsewhere is as the last program left it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec
import pytest

from infra.contract.files import MAX_FOLDERS, FileEntry, FolderEntry
from infra.settings import S3Settings
from infra.workspace import S3RunFiles, WorkspaceLimits, Workspaces
from infra.workspace import directory_sync as sync
from infra.workspace.tree import Tree

Entry = TypeVar("Entry", FileEntry, FolderEntry)
HOUR_NS = 3600 * 10**9
State: TypeAlias = dict[str, tuple[int, int | None]]
"""Mode of each file and folder by path, and the modification time of each file in ns."""
Elsewhere: TypeAlias = Callable[[S3RunFiles], S3RunFiles]


def state(directory: Path) -> State:
    found: State = {}
    for path in directory.rglob("*"):
        at = path.stat()
        found[str(path.relative_to(directory))] = (at.st_mode & 0o777, at.st_mtime_ns if path.is_file() else None)
    return found


def _apply(changes: dict[str, Entry | None], record: dict[str, Entry]) -> None:
    for path, entry in changes.items():
        record.pop(path, None)
        if entry:
            record[path] = msgspec.json.decode(msgspec.json.encode(entry), type=type(entry))  # as Redis holds it


@pytest.fixture
def elsewhere(workspaces: Workspaces, user: str) -> Elsewhere:
    """Function that returns the workspace of the next claim, from the record with all changes of the one given."""
    record: tuple[dict[str, FileEntry], dict[str, FolderEntry]] = ({}, {})

    def claimed(files: S3RunFiles) -> S3RunFiles:
        _apply(files.take_uncommitted(), record[0])
        _apply(files.take_uncommitted_folders(), record[1])
        return workspaces.run(user, "run-1", 2, *record)

    return claimed


def make_tree(work: Path) -> None:
    """Make files and folders of many kinds."""
    for folder in ("repo/refs/heads", "repo/refs/tags", "repo/objects", "closed", "full/of/files", "group"):
        (work / folder).mkdir(parents=True)
    (work / "full/of/files/script").write_text("#!/bin/sh\n")
    (work / "full/of/files/script").chmod(0o755)
    (work / "secret").write_text("s")
    (work / "secret").chmod(0o600)
    (work / "read-only").write_text("r")
    (work / "read-only").chmod(0o444)
    (work / "closed/inside").write_text("i")
    (work / "closed").chmod(0o500)
    (work / "group").chmod(0o775)
    for age, name in enumerate(("secret", "read-only", "full/of/files/script")):
        ns = 1_700_000_000_123_456_789 - age * HOUR_NS
        os.utime(work / name, ns=(ns, ns))


async def test_times_permissions_and_empty_folders_are_the_same_elsewhere(
    files: S3RunFiles, elsewhere: Elsewhere, work: Path
) -> None:
    await files.materialise(work)
    make_tree(work)
    expected = state(work)
    changes = await files.store_changes(work)
    assert [info.path for info in changes.written] == ["closed/inside", "full/of/files/script", "read-only", "secret"]
    other, there = elsewhere(files), work.with_name("elsewhere")
    await other.materialise(there)
    assert state(there) == expected

    assert await other.store_changes(there) == type(changes)(written=[], deleted=[], skipped=[])
    assert (other.take_uncommitted(), other.take_uncommitted_folders()) == ({}, {})
    await other.materialise(there)
    await files.materialise(work)
    assert state(there) == state(work) == expected


async def test_a_change_of_metadata_alone_keeps_the_object_and_is_no_written_file(
    files: S3RunFiles, elsewhere: Elsewhere, work: Path
) -> None:
    await files.write("touched", b"1")
    await files.write("tool.sh", b"2")
    await files.materialise(work)
    before = elsewhere(files)
    keys = {path: entry.key for path, entry in before._index.files.items()}
    os.utime(work / "touched", ns=(HOUR_NS, HOUR_NS))
    (work / "tool.sh").chmod(0o755)
    changes = await files.store_changes(work)
    assert (changes.written, changes.deleted, changes.skipped) == ([], [], [])
    other, there = elsewhere(files), work.with_name("elsewhere")
    await other.materialise(there)
    assert (there / "touched").stat().st_mtime_ns == HOUR_NS
    assert (there / "tool.sh").stat().st_mode & 0o777 == 0o755
    assert {path: entry.key for path, entry in other._index.files.items()} == keys
    assert [info.size_bytes for info in await other.list()] == [1, 1]


async def test_a_written_file_has_the_time_of_the_write_and_keeps_its_permissions(
    files: S3RunFiles, elsewhere: Elsewhere, work: Path
) -> None:
    work.mkdir()
    (work / "product").write_text("old")
    (work / "script").write_text("old")
    (work / "script").chmod(0o750)
    await files.store_changes(work)
    await files.write("source", b"new")
    await files.write("script", b"new")
    for workspace, directory in ((files, work), (elsewhere(files), work.with_name("elsewhere"))):
        await workspace.materialise(directory)
        assert (directory / "source").stat().st_mtime_ns > (directory / "product").stat().st_mtime_ns
        assert (directory / "script").stat().st_mode & 0o777 == 0o750
        assert (directory / "script").read_text() == "new"


async def test_a_file_of_an_earlier_release_has_the_time_at_which_it_was_stored(
    files: S3RunFiles, workspaces: Workspaces, user: str, work: Path
) -> None:
    await files.write("a", b"1")
    entry = files.take_uncommitted()["a"]
    assert entry
    old = FileEntry(key=entry.key, size_bytes=1, modified_ms=entry.modified_ms, executable=True)
    await workspaces.run(user, "run-1", 2, {"a": old}).materialise(work)
    found = (work / "a").stat()
    assert (found.st_mode & 0o777, found.st_mtime_ns) == (0o755, entry.modified_ms * 1_000_000)


async def test_folders_follow_what_programs_do(files: S3RunFiles, elsewhere: Elsewhere, work: Path) -> None:
    (work / "a/b").mkdir(parents=True)
    await files.store_changes(work)
    assert files._index.folders.keys() == {"a/b"}
    (work / "a/b/file").touch()
    await files.store_changes(work)
    assert not files._index.folders
    (work / "a/b/file").unlink()
    (work / "a/b").rmdir()
    (work / "a").chmod(0o700)
    await files.store_changes(work)
    assert files._index.folders == {"a": FolderEntry(mode=0o700)}
    (work / "a").rmdir()
    (work / "a").write_text("a file now")
    await files.store_changes(work)
    assert not elsewhere(files)._index.folders


async def test_the_folder_of_a_deleted_file_stays_until_a_file_takes_its_place(files: S3RunFiles, work: Path) -> None:
    for path in ("a/b/one", "a/b/two", ".run/x", "top"):
        await files.write(path, b"1")
        await files.delete(path)
    await files.write("kept/file", b"1")
    assert files._index.folders.keys() == {"a/b"}
    await files.materialise(work)
    assert (work / "a/b").is_dir()
    await files.write("a", b"1")
    await files.materialise(work)
    assert (work / "a").read_text() == "1"
    assert not files._index.folders


async def test_a_file_wins_over_a_folder_in_its_way(workspaces: Workspaces, user: str, work: Path) -> None:
    """Such a record is possible: workers of an earlier release do not know the fields of folders."""
    files = workspaces.run(user, "run-1", 1, {}, {"x": FolderEntry(), "y/z": FolderEntry(), "kept": FolderEntry()})
    for path in ("x", "y"):
        await files.write(path, b"1")
    assert files.take_uncommitted_folders() == {"x": None, "y/z": None}
    entries = {path: entry for path, entry in files.take_uncommitted().items() if entry}
    folders = {"x": FolderEntry(mode=0), "y/z": FolderEntry(), "kept": FolderEntry()}
    damaged = workspaces.run(user, "run-1", 2, entries, folders)
    await damaged.materialise(work)
    assert {path: mode for path, (mode, _) in state(work).items()} == {"x": 0o644, "y": 0o644, "kept": 0o755}
    await damaged.store_changes(work)
    assert damaged.take_uncommitted_folders() == {"x": None, "y/z": None}


async def test_a_folder_is_no_file_in_lists(files: S3RunFiles, work: Path) -> None:
    (work / "empty").mkdir(parents=True)
    (work / "file").touch()
    await files.store_changes(work)
    assert [info.path for info in await files.list()] == ["file"]
    assert await files.list("empty") == []


async def test_only_the_first_folders_are_kept_and_the_rest_is_counted(
    workspaces: Workspaces, user: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WorkspaceLimits().entries > MAX_FOLDERS
    monkeypatch.setattr(sync, "MAX_FOLDERS", 20)
    files = workspaces.run(user, "run-1", 1, {})
    for number in range(25):
        (work / f"{number:02}").mkdir(parents=True)
    assert (await files.store_changes(work)).unkept_folders == 5
    assert sorted(files._index.folders) == [f"{number:02}" for number in range(20)]
    (work / "00").rmdir()
    assert (await files.store_changes(work)).unkept_folders == 4
    assert "20" in files._index.folders


@pytest.mark.parametrize("seconds", [-1e10, -1, 0, 2**33, 1e11])
async def test_a_time_that_no_clock_shows_is_kept_as_far_as_the_file_system_can(
    files: S3RunFiles, elsewhere: Elsewhere, work: Path, seconds: float
) -> None:
    work.mkdir()
    (work / "a").touch()
    os.utime(work / "a", (seconds, seconds))
    await files.store_changes(work)
    other, there = elsewhere(files), work.with_name("elsewhere")
    await other.materialise(there)
    kept, found = (there / "a").stat().st_mtime_ns, (work / "a").stat().st_mtime_ns
    assert kept == min(found, 2**63 - 1)
    await other.store_changes(there)
    assert other.take_uncommitted() == {}


async def test_special_bits_are_not_kept(files: S3RunFiles, elsewhere: Elsewhere, work: Path) -> None:
    (work / "folder").mkdir(parents=True)
    (work / "folder").chmod(0o3777)
    (work / "program").touch()
    (work / "program").chmod(0o6755)
    await files.store_changes(work)
    there = work.with_name("elsewhere")
    await elsewhere(files).materialise(there)
    assert (there / "folder").stat().st_mode & 0o7777 == 0o777
    assert (there / "program").stat().st_mode & 0o7777 == 0o755
    await files.materialise(work)  # the next program of the same worker finds the same
    assert [(work / name).stat().st_mode & 0o7777 for name in ("folder", "program")] == [0o777, 0o755]


async def test_another_run_adopts_metadata_and_folders_and_copies_each_object_once(
    files: S3RunFiles, workspaces: Workspaces, user: str, work: Path
) -> None:
    work.mkdir()
    steps = []
    for mode in (0o644, 0o600, 0o755):
        (work / "a").touch()
        (work / "a").chmod(mode)
        (work / f"empty-{mode:o}").mkdir()
        os.utime(work / "a", ns=(mode, mode))
        await files.store_changes(work)
        steps.append((files.take_uncommitted(), files.take_uncommitted_folders()))
    fork, there = workspaces.run(user, "run-2", 1, {}), work.with_name("elsewhere")
    adopted = await fork.adopt(files, [changed for changed, _ in steps[:2]])
    fork.adopt_folders([changed for _, changed in steps[:2]])
    assert len({entry.key for change in adopted for entry in change.values() if entry}) == 1
    await fork.materialise(there)
    assert state(there) == {"a": (0o600, 0o600), "empty-644": (0o755, None), "empty-600": (0o755, None)}


LOCKED = """
import asyncio, os, sys
from pathlib import Path
from infra.settings import S3Settings
from infra.workspace import Workspaces
work, settings = Path(sys.argv[1]), S3Settings(*sys.argv[2:])

async def import_everything():
    workspaces = Workspaces(settings)
    files = workspaces.run("user-locked", "run-0", 1, {})
    await files.write("a", b"1")
    await files.materialise(work / "first")
    await asyncio.to_thread(workspaces.close)

asyncio.run(import_everything())
if os.geteuid() == 0:
    os.chown(work, 65534, 65534)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
os.umask(0o077)  # must not matter
here, there = work / "here", work / "there"
(here / "locked/in").mkdir(parents=True)
(here / "locked/in/file").write_text("1")
for path, mode in (("locked/in/file", 0), ("locked/in", 0o111), ("locked", 0o311)):
    (here / path).chmod(mode)

def modes(top):
    found = []
    for path in ("locked", "locked/in", "locked/in/file"):
        found.append((top / path).stat().st_mode & 0o777)
    return found

async def main():
    workspaces = Workspaces(settings)
    files = workspaces.run("user-locked", "run-1", 1, {})
    changes = await files.store_changes(here)
    assert [info.path for info in changes.written] == ["locked/in/file"], changes
    entries, folders = files.take_uncommitted(), files.take_uncommitted_folders()
    assert entries["locked/in/file"].mode == 0
    assert {path: entry.mode for path, entry in folders.items()} == {"locked": 0o311, "locked/in": 0o111}, folders
    await files.materialise(here)
    assert modes(here) == [0o311, 0o111, 0]
    other = workspaces.run("user-locked", "run-1", 2, entries, folders)
    for _ in range(2):
        await other.materialise(there)
        assert modes(there) == [0o311, 0o111, 0]
        changes = await other.store_changes(there)
        assert not changes.written and not other.take_uncommitted() and not other.take_uncommitted_folders()
    await asyncio.to_thread(workspaces.close)

asyncio.run(main())
"""


def test_permissions_that_lock_their_owner_out_are_kept(s3: S3Settings) -> None:
    """Runs as an unprivileged user, because permissions do not restrict root."""
    work = Path(tempfile.mkdtemp())
    settings = (s3.bucket, s3.region, s3.access_key, s3.secret_key, str(s3.endpoint_url))
    try:
        subprocess.run([sys.executable, "-c", LOCKED, str(work), *settings], check=True)
    finally:
        with Tree(work) as tree:
            tree.prune((), ())
        work.rmdir()
