"""Uploads of input files to a real store, and reads that compare their digests.

The first tests show what the store of the development stack checks itself; nothing relies on it.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.contract.errors import InputChanged, InvalidInput
from infra.contract.files import FileEntry
from infra.settings import S3Settings
from infra.workspace import Workspaces
from infra.workspace.workspaces import MAX_LINK_S

DATA = b"a,b\n1,2\n"
OTHER = b"a,b\n9,9\n"
AWKWARD = ["a b.csv", "ä/日本 😀.csv", "100%.csv", "a%20b", "a+b#c?d&e=f.csv", ".hidden/.x", "quo\"te'.csv", "x" * 255]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Uploads:
    """Upload of one file of the run `r` of `u`: its entry, its signed URL and the headers to send."""

    def __init__(self, entry: FileEntry, url: str, headers: dict[str, str]) -> None:
        self.entry, self.url, self.headers = entry, url, headers

    @classmethod
    async def of(cls, workspaces: Workspaces, path: str, data: bytes) -> "Uploads":
        entry = workspaces.new_upload(path, len(data), sha256(data))
        headers = workspaces.upload_headers(len(data), sha256(data), md5(data))
        return cls(entry, await workspaces.presign_put("u", "r", entry.key, 60, headers), headers)

    async def put(self, body: bytes, **headers: str) -> int:
        async with httpx.AsyncClient() as http:
            sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
            return (await http.put(self.url, content=body, headers=sent)).status_code


async def missing(workspaces: Workspaces, entry: FileEntry) -> bool:
    return await workspaces.missing("u", "r", {"p": entry}) == ["p"]


@pytest.mark.parametrize("data", [DATA, b"", b"x" * 3_000_000])
@pytest.mark.parametrize("checksum", ["sha256", "md5"])
async def test_an_announced_file_is_there_once_it_is_uploaded(s3: S3Settings, checksum: str, data: bytes) -> None:
    workspaces = Workspaces(replace(s3, upload_checksum=checksum))
    await workspaces.ensure_bucket()
    upload = await Uploads.of(workspaces, "data.csv", data)
    assert await missing(workspaces, upload.entry)
    assert await upload.put(data) == 200
    assert not await missing(workspaces, upload.entry)
    assert await upload.put(data) == 200
    assert await workspaces.run("u", "r", 1, {"data.csv": upload.entry}).read("data.csv") == data
    workspaces.close()


@pytest.mark.parametrize("path", AWKWARD)
async def test_every_allowed_name_can_be_uploaded(workspaces: Workspaces, path: str) -> None:
    upload = await Uploads.of(workspaces, path, DATA)
    assert await upload.put(DATA) == 200
    assert await workspaces.missing("u", "r", {path: upload.entry}) == []
    assert await workspaces.run("u", "r", 1, {path: upload.entry}).read(path) == DATA


@pytest.mark.parametrize("checksum", ["sha256", "md5"])
async def test_the_store_refuses_other_bytes_other_lengths_and_other_headers(s3: S3Settings, checksum: str) -> None:
    workspaces = Workspaces(replace(s3, upload_checksum=checksum))
    await workspaces.ensure_bucket()
    upload = await Uploads.of(workspaces, "a", DATA)
    other = await Uploads.of(workspaces, "a", OTHER)
    assert await upload.put(OTHER) == 400
    assert await upload.put(OTHER, **other.headers) == 403
    assert await upload.put(DATA + b"x", content_length=str(len(DATA) + 1)) == 403
    assert await upload.put(DATA[:-1], content_length=str(len(DATA) - 1)) == 403
    async with httpx.AsyncClient() as http:
        assert (await http.put(upload.url, content=DATA)).status_code == 403
        assert (await http.put(upload.url.replace("/files/0-", "/files/1-"), content=DATA)).status_code == 403
        assert (await http.get(upload.url)).status_code == 403
    assert await missing(workspaces, upload.entry)
    workspaces.close()


async def test_a_store_that_keeps_other_bytes_is_noticed_before_the_start(workspaces: Workspaces) -> None:
    """As if the store had not checked length or checksum."""
    upload = await Uploads.of(workspaces, "a", DATA)
    for body in (DATA[:-1], DATA + b"x"):
        workspaces._bucket.put(f"users/u/runs/r/{upload.entry.key}", body, len(body))
        assert await missing(workspaces, upload.entry)
    other = await Uploads.of(workspaces, "a", OTHER)
    assert await other.put(OTHER) == 200
    claimed = FileEntry(key=other.entry.key, size_bytes=len(DATA), modified_ms=0, sha256=sha256(DATA))
    assert await missing(workspaces, claimed)


@pytest.mark.parametrize("body", [OTHER, DATA + b"x", DATA[:-1], b"x" * 3_000_000])
async def test_a_file_that_was_overwritten_is_never_read(workspaces: Workspaces, tmp_path: Path, body: bytes) -> None:
    """As if the store had not checked length or checksum."""
    upload = await Uploads.of(workspaces, "a", DATA)
    assert await upload.put(DATA) == 200
    workspaces._bucket.put(f"users/u/runs/r/{upload.entry.key}", body, len(body))
    files = workspaces.run("u", "r", 1, {"a": upload.entry})
    for call in (files.read("a"), files.read("a", 1), files.read("a", 0), files.materialise(tmp_path / "work")):
        with pytest.raises(InputChanged, match=f"'a' was overwritten .* is not {upload.entry.sha256}"):
            await call
    assert list((tmp_path / "work").iterdir()) == []
    # The copy of a fork is compared as well.
    copy = workspaces.run("u", "fork", 1, {})
    await copy.adopt(files, [{"a": upload.entry}])
    with pytest.raises(InputChanged):
        await copy.read("a")


async def test_a_file_is_read_at_most_to_the_wanted_number_of_bytes(workspaces: Workspaces) -> None:
    data = bytes(range(256)) * 10_000
    upload = await Uploads.of(workspaces, "a", data)
    assert await upload.put(data) == 200
    files = workspaces.run("u", "r", 1, {"a": upload.entry})
    for count in (0, 1, 1024 * 1024, len(data), len(data) + 1):
        assert await files.read("a", count) == data[:count]
        assert await files.read("a", count, 1_000_001) == data[1_000_001 : 1_000_001 + count]


async def test_a_store_with_md5_needs_the_md5(s3: S3Settings) -> None:
    workspaces = Workspaces(replace(s3, upload_checksum="md5"))
    with pytest.raises(InvalidInput, match="by MD5"):
        workspaces.upload_headers(1, sha256(b""), None)
    workspaces.close()


@pytest.mark.parametrize("expires_s", [0, MAX_LINK_S + 1])
async def test_a_link_for_an_upload_has_a_bounded_time(workspaces: Workspaces, expires_s: int) -> None:
    headers: dict[str, Any] = workspaces.upload_headers(1, sha256(b"x"), None)
    with pytest.raises(InvalidInput, match="valid for 1 to"):
        await workspaces.presign_put("u", "r", "files/0-0/a", expires_s, headers)
