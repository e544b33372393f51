"""Synchronisation of a directory that programs have changed with the store."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.contract.errors import FileMissing, LimitExceeded
from infra.contract.files import FileChanges, FileEntry
from infra.workspace import S3RunFiles, Workspaces

OnDisk = Callable[[], dict[str, bytes]]


def names(changes: FileChanges) -> tuple[list[str], list[str], list[str]]:
    """Return the written, deleted and skipped paths."""
    return [info.path for info in changes.written], changes.deleted, changes.skipped


def committed(files: S3RunFiles) -> dict[str, FileEntry]:
    """Return the files of the run's record after the next commit."""
    return {path: entry for path, entry in files.take_uncommitted().items() if entry}


async def in_store(files: S3RunFiles) -> dict[str, bytes]:
    return {info.path: await files.read(info.path) for info in await files.list()}


async def test_changes_of_a_directory_are_stored_and_materialised_elsewhere(
    files: S3RunFiles, workspaces: Workspaces, user: str, work: Path, on_disk: OnDisk
) -> None:
    await files.write("keep", b"1")
    await files.write("data/ü 日本", b"2")
    await files.write("drop", b"3")
    await files.materialise(work)
    assert on_disk() == {"keep": b"1", "data/ü 日本": b"2", "drop": b"3"}

    (work / "drop").unlink()
    (work / "data/ü 日本").write_bytes(b"changed")
    (work / "new/deep").mkdir(parents=True)
    (work / "new/deep/empty").touch()
    changes = await files.store_changes(work)
    assert names(changes) == (["data/ü 日本", "new/deep/empty"], ["drop"], [])
    assert [info.size_bytes for info in changes.written] == [7, 0]
    assert await in_store(files) == on_disk()
    assert names(await files.store_changes(work)) == ([], [], [])

    other = workspaces.run(user, "run-1", 2, committed(files))
    elsewhere = work.with_name("elsewhere")
    await other.materialise(elsewhere)
    assert (elsewhere / "data/ü 日本").read_bytes() == b"changed"
    assert names(await other.store_changes(elsewhere)) == ([], [], [])


async def test_only_missing_files_are_fetched(files: S3RunFiles, work: Path) -> None:
    await files.write("same", b"1")
    await files.write("other", b"1")
    await files.materialise(work)
    before = {name: (work / name).stat().st_ino for name in ("same", "other")}
    await files.write("other", b"2")
    for _ in range(2):
        os.chown(work / "same", 65534 if os.geteuid() == 0 else -1, -1)  # as an executor does
        await files.materialise(work)
    assert (work / "same").stat().st_ino == before["same"]
    assert (work / "other").stat().st_ino != before["other"]
    assert names(await files.store_changes(work)) == ([], [], [])


async def test_a_change_with_a_reset_modification_time_is_found(files: S3RunFiles, work: Path) -> None:
    await files.write("sly", b"old")
    await files.materialise(work)
    for content in (b"new", b"two"):
        before = (work / "sly").stat()
        (work / "sly").write_bytes(content)
        os.utime(work / "sly", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert names(await files.store_changes(work)) == (["sly"], [], [])
        assert await files.read("sly") == content


async def test_a_touched_file_with_the_same_content_is_not_stored(files: S3RunFiles, work: Path) -> None:
    await files.write("touched", b"1")
    await files.materialise(work)
    (work / "touched").touch()
    assert names(await files.store_changes(work)) == ([], [], [])


async def test_links_and_special_files_are_never_stored(files: S3RunFiles, work: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    await files.write("data/table", b"1")
    await files.write("plain", b"1")
    await files.materialise(work)
    (work / "data/table").unlink()
    (work / "data").rmdir()
    (work / "data").symlink_to(outside)
    (work / "plain").unlink()
    (work / "plain").symlink_to("/etc/passwd")
    os.mkfifo(work / "fifo")
    (work / "bad\nname").write_text("x")
    assert names(await files.store_changes(work)) == (
        [],
        ["data/table", "plain"],
        ["bad\\nname", "data", "fifo", "plain"],
    )
    assert await files.list() == []

    await files.write("data/secret", b"from the store")
    await files.materialise(work)
    assert (outside / "secret").read_text() == "secret"
    assert [str(p.relative_to(work)) for p in work.rglob("*")] == ["data", "data/secret"]
    assert not (work / "data").is_symlink()


async def test_a_long_list_of_skipped_names_is_shortened(files: S3RunFiles, work: Path) -> None:
    work.mkdir()
    for n in range(150):
        (work / f"link-{n:03}").symlink_to("/")
    skipped = (await files.store_changes(work)).skipped
    assert len(skipped) == 101
    assert skipped[-1] == "… and 50 more"


async def test_the_reserved_folder_is_materialised_but_its_changes_are_not_stored(
    files: S3RunFiles, work: Path, on_disk: OnDisk
) -> None:
    await files.write(".run/kept", b"1")
    await files.write(".run/changed", b"1")
    await files.materialise(work)
    assert on_disk() == {".run/kept": b"1", ".run/changed": b"1"}
    (work / ".run/kept").unlink()
    (work / ".run/changed").write_bytes(b"2")
    (work / ".run/new").write_bytes(b"3")
    assert names(await files.store_changes(work)) == ([], [], [])
    await files.materialise(work)
    assert on_disk() == {".run/kept": b"1", ".run/changed": b"1"} == await in_store(files)


async def test_a_file_can_become_a_folder_and_a_file_again(files: S3RunFiles, work: Path, on_disk: OnDisk) -> None:
    await files.write("x", b"file")
    await files.materialise(work)
    (work / "x").unlink()
    (work / "x").mkdir()
    (work / "x/y").write_bytes(b"inside")
    assert names(await files.store_changes(work)) == (["x/y"], ["x"], [])
    assert await in_store(files) == {"x/y": b"inside"}
    (work / "x/y").unlink()
    (work / "x").rmdir()
    (work / "x").write_bytes(b"file again")
    assert names(await files.store_changes(work)) == (["x"], ["x/y"], [])
    await files.materialise(work)
    assert on_disk() == {"x": b"file again"} == await in_store(files)


async def test_a_file_with_the_path_of_a_folder_is_hidden_on_disk_and_stays_in_the_store(
    files: S3RunFiles, work: Path, on_disk: OnDisk
) -> None:
    await files.write("x", b"file")
    await files.write("x/y", b"inside")
    await files.materialise(work)
    assert on_disk() == {"x/y": b"inside"}
    assert names(await files.store_changes(work)) == ([], [], [])
    assert await files.read("x") == b"file"


async def test_files_of_a_worker_that_lost_its_lease_do_not_affect_the_owner(
    workspaces: Workspaces, user: str, work: Path
) -> None:
    before = workspaces.run(user, "run-1", 1, {})
    await before.write("a", b"old")
    record = committed(before)
    stale, owner = workspaces.run(user, "run-1", 2, record), workspaces.run(user, "run-1", 3, record)
    await owner.write("a", b"by the owner")
    await stale.write("a", b"by the stale worker")
    await stale.delete("a")
    await stale.materialise(work)
    (work / "a").write_bytes(b"by a program of the stale worker")
    await stale.store_changes(work)
    assert await owner.read("a") == b"by the owner"
    assert await workspaces.run(user, "run-1", 4, record).read("a") == b"old"
    assert await workspaces.run(user, "run-1", 4, record | committed(owner)).read("a") == b"by the owner"


async def test_uncommitted_changes_are_taken_once(files: S3RunFiles, work: Path) -> None:
    await files.write("a", b"1")
    await files.write("b", b"2")
    await files.delete("b")
    changes = files.take_uncommitted()
    assert changes.keys() == {"a", "b"}
    assert changes["a"]
    assert changes["b"] is None
    assert files.take_uncommitted() == {}
    await files.materialise(work)
    (work / "a").write_bytes(b"changed")
    await files.store_changes(work)
    again = files.take_uncommitted()["a"]
    assert again
    assert again.key != changes["a"].key
    assert again.size_bytes == 7


async def test_a_blob_is_stored_under_a_name_and_is_no_file(
    workspaces: Workspaces, files: S3RunFiles, user: str
) -> None:
    name = await files.put_blob(b"large result")
    assert await files.list() == []
    assert await workspaces.run(user, "run-1", 2, {}).get_blob(name) == b"large result"
    with pytest.raises(FileMissing):
        await files.get_blob("kept/9-9")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"a": 1, "data/big": 40_000_001}, "'data/big' has 40000001 bytes, a file may have at most 40000000"),
        ({"a": 30_000_001, "b": 30_000_000}, "has 60000001 bytes, at most 60000000 .* largest file is 'a'"),
        ({f"f{n}": 0 for n in range(401)}, "has 401 files, at most 400"),
        ({f"deep{n}/f": 0 for n in range(301)}, "more than 600 entries"),
    ],
)
async def test_no_file_of_a_workspace_over_a_limit_is_stored(
    files: S3RunFiles, work: Path, sizes: dict[str, int], message: str
) -> None:
    await files.write("before", b"1")
    await files.materialise(work)
    (work / "before").unlink()
    for path, size_bytes in sizes.items():
        (work / path).parent.mkdir(exist_ok=True)
        (work / path).touch()
        os.truncate(work / path, size_bytes)
    with pytest.raises(LimitExceeded, match=message):
        await files.store_changes(work)
    assert await in_store(files) == {"before": b"1"}


async def test_many_files_and_a_large_one_are_stored_and_materialised(
    files: S3RunFiles, workspaces: Workspaces, user: str, work: Path, on_disk: OnDisk
) -> None:
    work.mkdir()
    for n in range(300):
        (work / f"d{n % 7}").mkdir(exist_ok=True)
        (work / f"d{n % 7}/{n}").write_bytes(b"%d" % n)
    (work / "big").write_bytes(os.urandom(1_000_000) * 30)
    assert len((await files.store_changes(work)).written) == 301
    written = on_disk()
    for path in work.rglob("*"):
        if path.is_file():
            path.unlink()
    await files.materialise(work)
    assert on_disk() == written


async def test_two_hard_links_are_two_files(files: S3RunFiles, work: Path) -> None:
    work.mkdir()
    (work / "a").write_bytes(b"1")
    os.link(work / "a", work / "b")
    assert names(await files.store_changes(work)) == (["a", "b"], [], [])
    await files.materialise(work)
    (work / "a").write_bytes(b"2")
    assert (work / "b").read_bytes() == b"1"  # on the same worker too
    assert names(await files.store_changes(work)) == (["a"], [], [])


async def test_a_file_without_permissions_is_stored(files: S3RunFiles, work: Path) -> None:
    (work / "locked").mkdir(parents=True)
    (work / "locked/file").write_bytes(b"1")
    (work / "locked/file").chmod(0)
    (work / "locked").chmod(0)
    assert names(await files.store_changes(work)) == (["locked/file"], [], [])
    assert await files.read("locked/file") == b"1"
