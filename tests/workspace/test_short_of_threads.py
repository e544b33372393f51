"""Calls for which the host has no thread, or too little else."""

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
    """From its call on none can be started."""

    def refuse(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)


async def test_without_a_thread_a_call_is_refused(threads: Threads, no_more_threads: Callable[[], None]) -> None:
    no_more_threads()
    with pytest.raises(HostExhausted, match=NO_THREAD):
        await threads.call(lambda _: 1)


async def test_a_call_that_was_refused_is_not_made_by_a_thread_that_gets_free(
    threads: Threads, no_more_threads: Callable[[], None]
) -> None:
    begun, go = Event(), Event()
    made: list[str] = []

    def hold(_: Event) -> None:
        begun.set()
        go.wait()

    held = asyncio.ensure_future(threads.call(hold))
    await asyncio.to_thread(begun.wait)
    no_more_threads()
    with pytest.raises(HostExhausted, match=NO_THREAD):
        await threads.call(lambda _: made.append("the refused one"))
    go.set()
    await held

    async def later() -> bool:
        with suppress(HostExhausted):
            await threads.call(lambda _: made.append("a later one"))
        return bool(made)

    await until(later, "the thread has time")
    assert made == ["a later one"]


async def test_what_a_call_meets_is_told_apart(threads: Threads) -> None:
    def meet(error: Exception) -> None:
        raise error

    with pytest.raises(HostExhausted, match="disk space"):
        await threads.call(lambda _: meet(OSError(errno.ENOSPC, "full")))
    with pytest.raises(FilesUnavailable):
        await threads.call(lambda _: meet(FilesUnavailable("away")))
    with pytest.raises(PermissionError):
        await threads.call(lambda _: meet(PermissionError(errno.EACCES, "locked")))
