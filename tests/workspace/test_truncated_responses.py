"""Truncated and malformed responses of the store: never taken for complete ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.parsers import ResponseParserError

from infra.contract.errors import FilesUnavailable
from infra.contract.files import FileEntry
from infra.contract.log import Segment
from infra.contract.runs import RunHead
from infra.workspace import S3RunFiles, Workspaces
from infra.workspace.client import ATTEMPTS, translated_errors
from tests.support.faulty_s3 import FaultyS3, malformed, truncated
from tests.workspace.archived import collect, events

DATA = b"0123456789" * 10_000
TRUNCATED = {
    "in the status line": truncated(b"HTTP/1.1 20", 1),
    "in the head": truncated(b"\r\n"),
    "before the body": truncated(b"\r\n\r\n"),
    "after a byte of the body": truncated(b"\r\n\r\n", 1),
    "in the body": truncated(b"\r\n\r\n", 40_000),
    "before the last byte": truncated(b"\r\n\r\n", len(DATA) - 1),
}
MALFORMED = {
    "nothing": malformed(b""),
    "no XML": malformed(b"\x00\x01"),
    "half of the body": malformed(b"<?xml version='1.0'?><Copy"),
    "a page": malformed(b"<html><body>Log in</body></html>"),
    "a wrong time": malformed(b"<CopyObjectResult><LastModified>late</LastModified><ETag>x</ETag></CopyObjectResult>"),
    "a wrong number": malformed(b"<ListBucketResult><Name>x</Name><MaxKeys>many</MaxKeys></ListBucketResult>"),
}
IN_HEAD = ("in the head", "before the body", "after a byte of the body")
RESPONSES = {name: TRUNCATED[name] for name in IN_HEAD} | MALFORMED


@pytest.fixture
async def entry(files: S3RunFiles) -> FileEntry:
    """Entry of the file `a` of `run-1`."""
    await files.write("a", DATA)
    entry = files.take_uncommitted()["a"]
    assert entry
    return entry


@pytest.fixture
def stored(through_proxy: Workspaces, user: str, entry: FileEntry) -> S3RunFiles:
    """Workspace with that file, through the proxy."""
    return through_proxy.run(user, "run-1", 2, {"a": entry})


@pytest.mark.parametrize("max_bytes", [None, 2 * len(DATA), len(DATA) + 1, len(DATA)])
@pytest.mark.parametrize("where", TRUNCATED)
async def test_a_truncated_download_is_an_error(
    proxy: FaultyS3, stored: S3RunFiles, where: str, max_bytes: int | None
) -> None:
    proxy.then("GET", TRUNCATED[where])
    with pytest.raises(FilesUnavailable):
        await stored.read("a", max_bytes)
    assert await stored.read("a", max_bytes) == DATA


async def test_the_first_bytes_of_a_file_can_be_read(proxy: FaultyS3, stored: S3RunFiles) -> None:
    for size in (1, 39_999, 40_000, len(DATA) - 1):
        assert await stored.read("a", size) == DATA[:size]
    proxy.then("GET", TRUNCATED["in the body"])
    with pytest.raises(FilesUnavailable):
        await stored.read("a", 40_001)


async def test_a_redirect_is_not_followed_and_names_the_setting(proxy: FaultyS3, stored: S3RunFiles) -> None:
    head = b"HTTP/1.1 301 Moved\r\nLocation: https://s3.example/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    # To every request, as a proxy does that redirects to https.
    for method in ("GET", "HEAD"):
        proxy.then(method, *[lambda exchange: exchange.client.sendall(head)] * 99)
    with pytest.raises(FilesUnavailable, match=r"redirect 301, .*S3_ENDPOINT_URL"):
        await stored.read("a")
    proxy.heal()
    assert await stored.read("a") == DATA


@pytest.mark.parametrize("where", TRUNCATED)
async def test_a_truncated_file_is_not_materialised(
    proxy: FaultyS3, stored: S3RunFiles, work: Path, on_disk: Callable[[], dict[str, bytes]], where: str
) -> None:
    proxy.then("GET", TRUNCATED[where])
    with pytest.raises(FilesUnavailable):
        await stored.materialise(work)
    assert on_disk() == {}
    await stored.materialise(work)
    assert on_disk() == {"a": DATA}


@pytest.mark.parametrize("where", IN_HEAD)
async def test_a_truncated_segment_is_an_error(
    proxy: FaultyS3, through_proxy: Workspaces, run: RunHead, where: str
) -> None:
    segment = Segment(1, 9, 1)
    await through_proxy.logs.store(run, segment, events(1, 9))
    proxy.then("GET", TRUNCATED[where])
    with pytest.raises(FilesUnavailable):
        await collect(through_proxy, run, segment)
    assert await collect(through_proxy, run, segment) == events(1, 9)


@pytest.mark.parametrize("name", RESPONSES)
async def test_a_copy_without_confirmation_is_an_error(
    proxy: FaultyS3, stored: S3RunFiles, entry: FileEntry, through_proxy: Workspaces, user: str, name: str
) -> None:
    other = through_proxy.run(user, "run-2", 1, {})
    proxy.then("PUT", *[RESPONSES[name]] * ATTEMPTS)
    with pytest.raises(FilesUnavailable):
        await other.adopt(stored, [{"a": entry}])
    proxy.heal()
    await other.adopt(stored, [{"a": entry}])
    assert await other.read("a") == DATA


@pytest.mark.parametrize("name", RESPONSES)
async def test_a_truncated_listing_is_not_taken_for_empty(
    proxy: FaultyS3, stored: S3RunFiles, through_proxy: Workspaces, user: str, name: str
) -> None:
    proxy.then("GET", *[RESPONSES[name]] * ATTEMPTS)
    with pytest.raises(FilesUnavailable):
        await through_proxy.delete_run(user, "run-1")
    proxy.heal()
    assert await through_proxy.delete_run(user, "run-1") == 1


def test_errors_of_the_response_parser_are_failures_of_the_store() -> None:
    for error in (ResponseParserError("no XML"), ValueError("no number")):
        with pytest.raises(FilesUnavailable, match=type(error).__name__), translated_errors("a"):
            raise error
