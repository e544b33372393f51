"""Answers of which only a part comes, or something else: never taken for the whole."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.parsers import ResponseParserError

from infra.contract.errors import FilesUnavailable
from infra.contract.files import FileEntry
from infra.contract.log import Segment
from infra.contract.runs import RunHead
from infra.settings import S3Settings
from infra.workspace import S3RunFiles, Workspaces
from infra.workspace.client import ATTEMPTS, mapped
from tests.support.faulty_s3 import FaultyS3, faulty_s3, garbled, torn
from tests.workspace.test_log_segments import collect, events

DATA = b"0123456789" * 10_000
TORN = {
    "in the status line": torn(b"HTTP/1.1 20", 1),
    "in the head": torn(b"\r\n"),
    "before the body": torn(b"\r\n\r\n"),
    "after a byte of the body": torn(b"\r\n\r\n", 1),
    "in the body": torn(b"\r\n\r\n", 40_000),
    "before the last byte": torn(b"\r\n\r\n", len(DATA) - 1),
}
GARBLED = {
    "nothing": garbled(b""),
    "no XML": garbled(b"\x00\x01"),
    "half of it": garbled(b"<?xml version='1.0'?><Copy"),
    "a page": garbled(b"<html><body>Log in</body></html>"),
    "a wrong time": garbled(b"<CopyObjectResult><LastModified>late</LastModified><ETag>x</ETag></CopyObjectResult>"),
    "a wrong number": garbled(b"<ListBucketResult><Name>x</Name><MaxKeys>many</MaxKeys></ListBucketResult>"),
}
ANSWERS = {name: TORN[name] for name in ("in the head", "before the body", "after a byte of the body")} | GARBLED


@pytest.fixture
def store(s3: S3Settings) -> Iterator[FaultyS3]:
    with faulty_s3(s3) as faulty:
        yield faulty


@pytest.fixture
def behind(store: FaultyS3, workspaces: Workspaces) -> Iterator[Workspaces]:
    """What is asked of these meets the faults; the bucket comes with `workspaces`."""
    made = Workspaces(store.settings)
    yield made
    made.close()


@pytest.fixture
async def entry(files: S3RunFiles) -> FileEntry:
    """Of the file `a` of `run-1`."""
    await files.write("a", DATA)
    entry = files.take_uncommitted()["a"]
    assert entry
    return entry


@pytest.fixture
def stored(behind: Workspaces, user: str, entry: FileEntry) -> S3RunFiles:
    """The workspace with that file, behind the faults."""
    return behind.run(user, "run-1", 2, {"a": entry})


@pytest.mark.parametrize("max_bytes", [None, 2 * len(DATA), len(DATA) + 1, len(DATA)])
@pytest.mark.parametrize("where", TORN)
async def test_half_a_file_is_not_read_as_the_whole(
    store: FaultyS3, stored: S3RunFiles, where: str, max_bytes: int | None
) -> None:
    store.then("GET", TORN[where])
    with pytest.raises(FilesUnavailable):
        await stored.read("a", max_bytes)
    assert await stored.read("a", max_bytes) == DATA


async def test_the_beginning_of_a_file_is_read_however_it_comes(store: FaultyS3, stored: S3RunFiles) -> None:
    for size in (1, 39_999, 40_000, len(DATA) - 1):
        assert await stored.read("a", size) == DATA[:size]
    store.then("GET", TORN["in the body"])
    with pytest.raises(FilesUnavailable):
        await stored.read("a", 40_001)


@pytest.mark.parametrize("where", TORN)
async def test_half_a_file_is_not_put_in_place(
    store: FaultyS3, stored: S3RunFiles, work: Path, on_disk: Callable[[], dict[str, bytes]], where: str
) -> None:
    store.then("GET", TORN[where])
    with pytest.raises(FilesUnavailable):
        await stored.materialise(work)
    assert on_disk() == {}
    await stored.materialise(work)
    assert on_disk() == {"a": DATA}


@pytest.mark.parametrize("where", ["in the head", "before the body", "after a byte of the body"])
async def test_half_a_segment_is_not_read_as_the_whole(
    store: FaultyS3, behind: Workspaces, run: RunHead, where: str
) -> None:
    segment = Segment(1, 9, 1)
    await behind.logs.store(run, segment, events(1, 9))
    store.then("GET", TORN[where])
    with pytest.raises(FilesUnavailable):
        await collect(behind, run, segment)
    assert await collect(behind, run, segment) == events(1, 9)


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_copy_is_not_taken_for_made(
    store: FaultyS3, stored: S3RunFiles, entry: FileEntry, behind: Workspaces, user: str, name: str
) -> None:
    other = behind.run(user, "run-2", 1, {})
    store.then("PUT", *[ANSWERS[name]] * ATTEMPTS)
    with pytest.raises(FilesUnavailable):
        await other.adopt(stored, [{"a": entry}])
    store.heal()
    await other.adopt(stored, [{"a": entry}])
    assert await other.read("a") == DATA


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_listing_is_not_taken_for_empty(
    store: FaultyS3, stored: S3RunFiles, behind: Workspaces, user: str, name: str
) -> None:
    store.then("GET", *[ANSWERS[name]] * ATTEMPTS)
    with pytest.raises(FilesUnavailable):
        await behind.delete_run(user, "run-1")
    store.heal()
    assert await behind.delete_run(user, "run-1") == 1


def test_whatever_the_parser_says_of_an_answer_is_a_failure_of_the_store() -> None:
    for error in (ResponseParserError("no XML"), ValueError("no number")):
        with pytest.raises(FilesUnavailable, match=type(error).__name__), mapped("a"):
            raise error
