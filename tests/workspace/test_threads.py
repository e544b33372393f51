"""Blocking calls in threads, and their cancellation."""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from infra.workspace import S3RunFiles
from infra.workspace.bucket import Bucket
from infra.workspace.cancellation import CallCancelled, Cancellation
from infra.workspace.threads import Threads, each
from tests.support.waiting import until


@pytest.fixture
def threads() -> Iterator[Threads]:
    built = Threads()
    yield built
    built.close()


async def test_a_cancelled_call_ends_before_its_task(threads: Threads) -> None:
    begun, release, ended = Event(), Event(), Event()

    def work(cancellation: Cancellation) -> None:
        begun.set()
        assert cancellation.wait(10)
        assert release.wait(10)
        ended.set()

    async def begins() -> bool:
        return begun.is_set()

    task = asyncio.create_task(threads.call(work))
    await until(begins, "the call begins")
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@pytest.mark.parametrize("times", [1, 3])
async def test_the_error_of_a_cancelled_call_is_not_logged_by_asyncio(threads: Threads, times: int) -> None:
    begun, release = Event(), Event()
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))

    def work(cancellation: Cancellation) -> None:
        begun.set()
        assert release.wait(10)
        raise ValueError

    async def begins() -> bool:
        return begun.is_set()

    task = asyncio.create_task(threads.call(work))
    await until(begins, "the call begins")
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()
    assert not reported


def test_the_first_error_prevents_further_items() -> None:
    done: list[int] = []

    def work(n: int) -> None:
        if n == 3:
            raise ValueError(n)
        done.append(n)

    with pytest.raises(ValueError, match="3"):
        each(work, range(10_000), Cancellation())
    assert len(done) < 10_000


@pytest.mark.parametrize("count", [1, 100])
def test_no_item_is_started_after_the_cancellation(count: int) -> None:
    cancellation = Cancellation()
    cancellation.set()
    done: list[int] = []
    with pytest.raises(CallCancelled):
        each(done.append, range(count), cancellation)
    assert done == []


def test_results_have_the_order_of_the_items() -> None:
    assert each(lambda n: n * n, range(50), Cancellation()) == [n * n for n in range(50)]


async def test_a_cancelled_store_stores_nothing_after_its_return(
    files: S3RunFiles, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.mkdir()
    for n in range(200):
        (work / f"{n:03}").write_bytes(b"x")
    puts: list[str] = []
    put = Bucket.put

    def counted(self: Bucket, key: str, *args: bytes, **options: bool) -> object:
        response = put(self, key, *args, **options)  # type: ignore[arg-type]
        puts.append(key)
        return response

    async def uploading() -> bool:
        return len(puts) > 10

    monkeypatch.setattr(Bucket, "put", counted)
    task = asyncio.create_task(files.store_changes(work))
    await until(uploading, "uploads have started")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stored = len(puts)
    assert stored < 200
    assert await files.list() == []
    assert files.take_uncommitted() == {}
    assert len((await files.store_changes(work)).written) == 200
    assert len(puts) == stored + 200
