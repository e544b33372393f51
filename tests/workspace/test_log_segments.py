"""Archive of logs on a real S3 server."""

import asyncio
import gzip
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from msgspec import json, structs

from infra.contract.errors import FileMissing
from infra.contract.log import Segment
from infra.contract.runs import RunHead
from infra.workspace import Workspaces, log_segments
from infra.workspace.log_segments import ObjectCache
from tests.support.s3 import BUCKET
from tests.workspace.archived import collect, events

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


async def test_a_segment_is_read_from_any_position_in_small_pieces(
    workspaces: Workspaces, run: RunHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_segments, "PIECE_BYTES", 50)
    segment = Segment(5, 300, 2)
    await workspaces.logs.store(run, segment, events(5, 300))
    for after in (0, 4, 5, 150, 299, 300):
        assert await collect(workspaces, run, segment, after) == events(max(5, after + 1), 300)


async def test_a_segment_is_an_object_of_compressed_json_lines(
    workspaces: Workspaces, run: RunHead, raw: "S3Client"
) -> None:
    segment = Segment(1, 2, 7)
    await workspaces.logs.store(run, segment, events(1, 2))
    key = f"users/{run.user}/runs/run-1/log/1795000000000-0000000001-2-7.ndjson.gz"
    body = raw.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    lines = [json.decode(line) for line in gzip.decompress(body).splitlines()]
    assert lines[0] == {"seq": 1, "ts": 1, "type": "log", "step": 1, "data": {"é": "\n1"}}
    await workspaces.logs.store(run, segment, events(1, 2))
    assert raw.get_object(Bucket=BUCKET, Key=key)["Body"].read() == body
    await workspaces.logs.store(structs.replace(run, created_ms=1), segment, events(1, 2))
    assert await workspaces.delete_run(run.user, run.id) == 2


async def test_a_segment_is_missing_before_it_is_stored_and_after_it_is_discarded(
    workspaces: Workspaces, run: RunHead
) -> None:
    segment = Segment(1, 9, 1)
    with pytest.raises(FileMissing):
        await collect(workspaces, run, segment)
    await workspaces.logs.store(run, segment, events(1, 9))
    assert await collect(workspaces, run, segment) == events(1, 9)
    other = Segment(10, 12, 1)
    await workspaces.logs.store(run, other, events(10, 12))
    await workspaces.logs.discard(run, other)
    with pytest.raises(FileMissing):
        await collect(workspaces, run, other)


DAMAGED = {
    "empty": (b"", False),
    "not gzip": (b"not gzip", True),
    "not an event": (gzip.compress(b'{"seq":1}\n'), True),
    "truncated": (gzip.compress(b'{"seq":'), False),
}


@pytest.mark.parametrize("kind", DAMAGED)
async def test_a_damaged_segment_yields_no_event(
    workspaces: Workspaces, run: RunHead, raw: "S3Client", kind: str
) -> None:
    body, raises = DAMAGED[kind]
    segment = Segment(1, 1, 1)
    await workspaces.logs.store(run, segment, events(1, 1))
    (key,) = [item["Key"] for item in raw.list_objects_v2(Bucket=BUCKET, Prefix=f"users/{run.user}/")["Contents"]]
    raw.put_object(Bucket=BUCKET, Key=key, Body=body)
    with pytest.raises(FileMissing) if raises else nullcontext():
        assert await collect(workspaces, run, segment) == []


async def test_concurrent_readers_share_one_fetch_and_errors_are_not_cached() -> None:
    fetched: list[str] = []
    fail = True

    async def fetch(key: str) -> bytes:
        fetched.append(key)
        await asyncio.sleep(0.01)
        if fail:
            raise FileMissing(key)
        return key.encode() * 10

    cache = ObjectCache(fetch, 25)
    answers = await asyncio.gather(*(cache.get("a") for _ in range(5)), return_exceptions=True)
    assert all(isinstance(answer, FileMissing) for answer in answers)
    assert fetched == ["a"]
    fail = False
    assert await asyncio.gather(*(cache.get(key) for key in "aabb")) == [b"a" * 10, b"a" * 10, b"b" * 10, b"b" * 10]
    assert fetched == ["a", "a", "b"]
    await cache.get("a")
    await cache.get("c")
    assert fetched == ["a", "a", "b", "c"]
    await cache.get("a")
    assert fetched == ["a", "a", "b", "c"]
    await cache.get("b")
    assert fetched == ["a", "a", "b", "c", "b"]


async def test_a_cancelled_reader_does_not_cancel_the_fetch_of_others() -> None:
    go = asyncio.Event()

    async def fetch(key: str) -> bytes:
        await go.wait()
        return b"x"

    cache = ObjectCache(fetch, 10)
    leaving, staying = asyncio.create_task(cache.get("a")), asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    go.set()
    assert await staying == b"x"
