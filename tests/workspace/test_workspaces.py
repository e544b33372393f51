"""Bucket, links, deletion, and errors of the store."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import pytest

from infra.contract.errors import FilesUnavailable, InvalidInput
from infra.contract.files import FileEntry
from infra.settings import S3Settings
from infra.workspace import Workspaces
from infra.workspace.bucket import Bucket
from tests.support.faulty_s3 import FaultyS3, malformed, refused
from tests.support.redis import free_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@asynccontextmanager
async def workspaces_over(settings: S3Settings) -> AsyncIterator[Workspaces]:
    workspaces = Workspaces(settings)
    try:
        yield workspaces
    finally:
        workspaces.close()


async def fetch(url: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(url)


def test_the_import_of_workspaces_does_not_load_boto3() -> None:
    program = "import sys, infra.workspace; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


ENTRY = FileEntry(key="files/1-1/a", size_bytes=1, modified_ms=0)


async def stored(workspaces: Workspaces, user: str, path: str, data: bytes) -> FileEntry:
    """Store a file of the run `r`; return its entry."""
    files = workspaces.run(user, "r", 1, {})
    await files.write(path, data)
    entry = files.take_uncommitted()[path]
    assert entry
    return entry


async def test_concurrent_calls_can_create_the_bucket(s3: S3Settings) -> None:
    settings = replace(s3, bucket=f"bucket-{uuid4().hex}")
    async with workspaces_over(settings) as one, workspaces_over(settings) as other:
        with pytest.raises(FilesUnavailable, match="the bucket 'bucket-"):
            await one.check()
        await asyncio.gather(*(w.ensure_bucket() for w in (one, other, one, other)))
        await one.check()
        await other.run("u", "r", 1, {}).write("a", b"1")


@pytest.mark.parametrize("method", ["HEAD", "PUT", "GET", "DELETE"])
async def test_the_check_notices_each_missing_permission_and_leaves_at_most_one_object(
    proxy: FaultyS3, through_proxy: Workspaces, raw: "S3Client", s3: S3Settings, method: str
) -> None:
    def left() -> int:
        return int(raw.list_objects_v2(Bucket=s3.bucket, Prefix="users/_check/")["KeyCount"])

    for _ in range(2):
        proxy.then(method, refused(HTTPStatus.FORBIDDEN, "AccessDenied"))
        with pytest.raises(FilesUnavailable, match="403"):
            await through_proxy.check()
        assert left() <= 1
    await through_proxy.check()
    assert left() == 0


async def test_a_server_that_answers_200_to_everything_is_no_store(proxy: FaultyS3, through_proxy: Workspaces) -> None:
    for method in ("HEAD", "PUT", "GET", "DELETE"):
        proxy.then(method, malformed(b"" if method == "HEAD" else b"<html>Welcome</html>"))
    with pytest.raises(FilesUnavailable, match=r"not what was read; does S3_ENDPOINT_URL lead to an S3 server\?"):
        await through_proxy.check()


async def test_variables_for_another_store_have_no_effect(
    s3: S3Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\nretry_mode = nonsense\nendpoint_url = http://127.0.0.1:1\n")
    variables = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_RETRY_MODE", "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT")
    for name in variables:
        monkeypatch.setenv(name, "nonsense")
    async with workspaces_over(s3) as workspaces:
        await workspaces.check()
    for name in variables:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "nonsense")
    async with workspaces_over(s3) as workspaces:
        await workspaces.check()


async def test_errors_for_wrong_credentials_do_not_contain_them(s3: S3Settings, work: Path) -> None:
    async with workspaces_over(replace(s3, secret_key="wrong-secret")) as workspaces:
        files = workspaces.run("u", "r", 1, {"a": ENTRY})
        calls = (files.read("a"), files.write("b", b"x"), files.materialise(work), workspaces.check())
        for call in calls:
            with pytest.raises(FilesUnavailable) as caught:
                await call
            assert "403" in str(caught.value)
            assert "wrong-secret" not in str(caught.value)
            assert s3.access_key not in str(caught.value)


async def test_a_missing_bucket_is_not_a_missing_file(s3: S3Settings) -> None:
    async with workspaces_over(replace(s3, bucket="no-such-bucket")) as workspaces:
        with pytest.raises(FilesUnavailable, match="NoSuchBucket"):
            await workspaces.run("u", "r", 1, {"a": ENTRY}).read("a")
        with pytest.raises(FilesUnavailable, match="NoSuchBucket"):
            await workspaces.missing("u", "r", {"a": ENTRY})


async def test_an_unreachable_server_is_an_error_within_seconds(s3: S3Settings, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    async with workspaces_over(replace(s3, endpoint_url=f"http://127.0.0.1:{free_port()}")) as workspaces:
        files = workspaces.run("u", "r", 1, {"a": ENTRY})
        begin = time.monotonic()
        for call in (files.read("a"), files.store_changes(tmp_path)):
            with pytest.raises(FilesUnavailable, match="EndpointConnectionError"):
                await call
        assert time.monotonic() - begin < 15


async def test_a_link_downloads_an_attachment_and_cannot_be_altered(workspaces: Workspaces, user: str) -> None:
    entry = await stored(workspaces, user, "ü/page.html", b"<script>")
    await stored(workspaces, user, "other", b"x")
    url = await workspaces.presign_get(user, "r", "ü/page.html", entry, 60, inline=True)
    answer = await fetch(url)
    assert (answer.status_code, answer.content) == (200, b"<script>")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment; filename=\"page.html\"; filename*=UTF-8''page.html"
    altered = (
        url.replace("octet-stream", "xhtml%2Bxml"),
        url.replace("attachment", "inline"),
        url.replace("page.html?", "page.htm?"),
        url.replace("%C3%BC/page.html?", "other?"),
        url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"),
        url[:-1] + ("0" if url[-1] != "0" else "1"),
        url.split("?", 1)[0],
    )
    assert len({url, *altered}) == 8
    for bad in altered:
        assert (await fetch(bad)).status_code == 403


async def test_an_image_can_be_linked_inline(workspaces: Workspaces, user: str) -> None:
    entry = await stored(workspaces, user, "plot.png", b"\x89PNG")
    answer = await fetch(await workspaces.presign_get(user, "r", "plot.png", entry, 60, inline=True))
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].startswith("inline; ")


async def test_a_link_expires(workspaces: Workspaces, user: str) -> None:
    entry = await stored(workspaces, user, "a", b"x")
    url = await workspaces.presign_get(user, "r", "a", entry, 1)

    async def refused() -> bool:
        return (await fetch(url)).status_code == 403

    await until(refused, "the link expires")
    for expires_s in (0, 7 * 24 * 3600 + 1):
        with pytest.raises(InvalidInput, match="a link is valid for"):
            await workspaces.presign_get(user, "r", "a", entry, expires_s)


async def test_a_run_with_more_objects_than_one_page_is_deleted(
    workspaces: Workspaces, raw: "S3Client", s3: S3Settings, user: str
) -> None:
    other = workspaces.run(user, "run-10", 1, {})
    await other.write("stays", b"x")
    stays = other.take_uncommitted()["stays"]
    assert stays
    files = workspaces.run(user, "run-1", 1, {})
    for start in range(0, 1_010, 101):
        await asyncio.gather(*(files.write(f"d/{n - start}", b"") for n in range(start, start + 101)))
    for tail in ("log/1.gz", "files/x\ny", "files/bell\x07"):
        raw.put_object(Bucket=s3.bucket, Key=f"users/{user}/runs/run-1/{tail}", Body=b"x")
    assert await workspaces.delete_run(user, "run-1") == 1_013
    left = raw.list_objects_v2(Bucket=s3.bucket, Prefix=f"users/{user}/")["Contents"]
    assert [item["Key"] for item in left] == [f"users/{user}/runs/run-10/{stays.key}"]
    assert await workspaces.delete_run(user, "run-1") == 0


async def test_objects_are_deleted_one_by_one_in_a_store_without_batches(
    workspaces: Workspaces, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = workspaces.run(user, "run-1", 1, {})
    for n in range(20):
        await files.write(f"{n}", b"x")
    monkeypatch.setattr(Bucket, "delete_batch", lambda _self, keys: keys)
    assert await workspaces.delete_run(user, "run-1") == 20
    assert await workspaces.delete_run(user, "run-1") == 0
