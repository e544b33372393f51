"""Blocking work off the event loop, so that nothing goes on in a thread after the awaiting task has gone."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

from infra.host_limits import translate_exhaustion
from infra.workspace.cancellation import Stop, look

CALLS = 32
TRANSFERS = 8
"""Of one call at a time: each call has its own, so that a run with many files does not queue before another's one."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Threads:
    """At most CALLS blocking calls at a time, apart from the event loop's own threads, which resolve host names."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(CALLS, thread_name_prefix="workspace")

    async def call(self, function: Callable[[Stop], Result]) -> Result:
        """Run `function`, which looks at the event and stops early once it is set.

        A thread cannot be cancelled: if the task is, the event is set and CancelledError leaves here only after the
        function has returned. That is soon: `stop` ends transfers under way however slow they are, and leaves only the
        opening of a connection to its own timeout.

        Raises HostExhausted if the host has no thread for it, or too little of what it needs.
        """
        stop = Stop()
        with translate_exhaustion():
            future = self._submit(function, stop)
            ended = asyncio.wrap_future(future)
            ended.add_done_callback(_retrieve)
            try:
                return await asyncio.shield(ended)
            except asyncio.CancelledError:
                stop.set()
                future.cancel()
                await _outlast(ended)
                raise

    def _submit(self, function: Callable[[Stop], Result], stop: Stop) -> Future[Result]:
        try:
            return self._pool.submit(_governed, function, stop)
        except RuntimeError:
            stop.set()  # the pool keeps what it has been given, though it could not start a thread for it
            raise

    def close(self) -> None:
        """Let the threads end; calls under way are finished first."""
        self._pool.shutdown()


def _governed(function: Callable[[Stop], Result], stop: Stop) -> Result:
    with stop.governs():
        look()
        return function(stop)


def _retrieve(ended: "asyncio.Future[Result]") -> None:
    """Look at how it ended, which a task that was cancelled does not: the event loop would report that as a mistake."""
    if not ended.cancelled():
        ended.exception()


async def _outlast(ended: "asyncio.Future[Result]") -> None:
    """Wait for the end of a call, however often the waiting is cancelled."""
    while not ended.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({ended})


def each(function: Callable[[Item], Result], items: Iterable[Item], stop: Stop) -> list[Result]:
    """Apply `function` to the items, a few at a time, and return the results in order.

    At the first error, or once `stop` is set, no further item is begun; those under way are waited for, then the
    error is raised (Stopped for `stop`).
    """

    def guarded(item: Item) -> Result:
        with stop.governs():
            look()
            return function(item)

    work = list(items)
    if len(work) < 2:
        return [guarded(item) for item in work]
    with ThreadPoolExecutor(min(TRANSFERS, len(work)), thread_name_prefix="transfer") as pool:
        futures = [pool.submit(guarded, item) for item in work]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
        wait(futures)
    for future in futures:
        if not future.cancelled() and (error := future.exception()):
            raise error
    return [future.result() for future in futures]
