"""Single files of a workspace, in a real store."""

import time

import pytest

from infra.contract.errors import FileMissing, InvalidInput, LimitExceeded
from infra.workspace import S3RunFiles, Workspaces
from worker.workspaces import RunFiles


def test_run_files_implement_the_port_of_the_worker(files: S3RunFiles) -> None:
    port: RunFiles = files
    assert port is files


@pytest.mark.parametrize("path", ["a.txt", "data/ü ñ 日本.csv", "sp ace+%41?#&=.txt", ".run/step-1/out.txt", "e\u0301"])
async def test_a_written_file_can_be_read_and_listed(files: S3RunFiles, path: str) -> None:
    written = await files.write(path, b"hello")
    assert await files.read(path) == b"hello"
    (listed,) = await files.list()
    assert (listed.path, listed.size_bytes) == (path, 5) == (written.path, written.size_bytes)
    assert abs(listed.modified_ms - time.time() * 1000) < 60_000
    assert abs(listed.modified_ms - written.modified_ms) <= 1_500


@pytest.mark.parametrize(("max_bytes", "expected"), [(0, b""), (1, b"h"), (4, b"hell"), (5, b"hello"), (99, b"hello")])
async def test_a_read_returns_at_most_the_first_bytes(files: S3RunFiles, max_bytes: int, expected: bytes) -> None:
    await files.write("a", b"hello")
    assert await files.read("a", max_bytes) == expected


@pytest.mark.parametrize(
    ("offset", "max_bytes", "expected"),
    [(0, 2, b"he"), (1, 2, b"el"), (3, 2, b"lo"), (3, 99, b"lo"), (4, 1, b"o"), (5, 1, b""), (2**53 - 1, 1, b"")],
)
async def test_a_read_begins_at_its_offset(files: S3RunFiles, offset: int, max_bytes: int, expected: bytes) -> None:
    await files.write("a", b"hello")
    assert await files.read("a", max_bytes, offset) == expected


async def test_an_empty_file_can_be_read(files: S3RunFiles) -> None:
    await files.write("empty", b"")
    assert await files.read("empty") == b""
    assert await files.read("empty", 10) == b""


async def test_a_missing_file_is_an_error(files: S3RunFiles) -> None:
    with pytest.raises(FileMissing, match=r"^there is no file 'data/none\.txt'$"):
        await files.read("data/none.txt")
    with pytest.raises(FileMissing):
        await files.read("data/none.txt", 10)
    with pytest.raises(FileMissing):
        await files.delete("data/none.txt")


async def test_a_deleted_file_is_neither_listed_nor_read(files: S3RunFiles) -> None:
    await files.write("a", b"1")
    await files.delete("a")
    assert await files.list() == []
    with pytest.raises(FileMissing):
        await files.read("a")


async def test_a_folder_is_listed_with_all_files_below_it(files: S3RunFiles) -> None:
    for path in ("b/2", "b/1", "b", "bb/3", "a"):
        await files.write(path, b"x")
    assert [info.path for info in await files.list()] == ["a", "b", "b/1", "b/2", "bb/3"]
    assert [info.path for info in await files.list("b")] == ["b/1", "b/2"]
    assert await files.list("none") == []


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../b", "a//b", "a\nb", "a\\b", "a/"])
async def test_a_path_that_could_leave_the_workspace_is_refused(files: S3RunFiles, path: str) -> None:
    for call in (files.read(path), files.write(path, b""), files.delete(path)):
        with pytest.raises(InvalidInput):
            await call
    if path:
        with pytest.raises(InvalidInput):
            await files.list(path)


async def test_a_file_that_is_too_large_is_not_stored(files: S3RunFiles) -> None:
    with pytest.raises(LimitExceeded, match="'big' has 40000001 bytes, a file may have at most 40000000"):
        await files.write("big", bytes(40_000_001))
    assert await files.list() == []


async def test_runs_and_users_do_not_see_each_other(workspaces: Workspaces, user: str) -> None:
    mine = workspaces.run(user, "r1", 1, {})
    await mine.write("a", b"mine")
    entries = {path: entry for path, entry in mine.take_uncommitted().items() if entry}
    for ids in ((user, "r10"), (f"{user}0", "r1")):
        with pytest.raises(FileMissing):
            await workspaces.run(*ids, 1, entries).read("a")
