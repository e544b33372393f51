"""Calls on a host without free threads or other resources."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from threading import Event, Thread

import pytest

from infra.contract.errors import FilesUnavailable, HostExhausted
from infra.workspace.threads import Threads
from tests.support.waiting import until

NO_THREAD = "the worker's host is short of processes or threads: Resource temporarily unavailable"


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    made = Threads()
    yield made
    await asyncio.to_thread(made.close)


@pytest.fixture
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Function after whose call no thread can be started."""

    def refuse(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)


async def test_a_call_without_a_thread_is_refused(threads: Threads, no_more_threads: Callable[[], None]) -> None:
    no_more_threads()
    with pytest.raises(HostExhausted, match=NO_THREAD):
        await threads.call(lambda _: 1)


async def test_a_refused_call_is_not_made_by_a_thread_that_becomes_free(
    threads: Threads, no_more_threads: Callable[[], None]
) -> None:
    begun, release = Event(), Event()
    made: list[str] = []

    def block(_: Event) -> None:
        begun.set()
        release.wait()

    blocked = asyncio.ensure_future(threads.call(block))
    await asyncio.to_thread(begun.wait)
    no_more_threads()
    with pytest.raises(HostExhausted, match=NO_THREAD):
        await threads.call(lambda _: made.append("the refused one"))
    release.set()
    await blocked

    async def calls_again() -> bool:
        with suppress(HostExhausted):
            await threads.call(lambda _: made.append("a later one"))
        return bool(made)

    await until(calls_again, "the thread is free")
    assert made == ["a later one"]


async def test_only_exhaustion_of_the_host_is_translated(threads: Threads) -> None:
    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(HostExhausted, match="disk space"):
        await threads.call(lambda _: fail(OSError(errno.ENOSPC, "full")))
    with pytest.raises(FilesUnavailable):
        await threads.call(lambda _: fail(FilesUnavailable("away")))
    with pytest.raises(PermissionError):
        await threads.call(lambda _: fail(PermissionError(errno.EACCES, "locked")))
