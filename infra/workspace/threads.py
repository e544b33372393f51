"""Blocking calls in threads. No call continues in its thread after the awaiting task has ended."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

from infra.host_limits import translate_exhaustion
from infra.workspace.cancellation import Cancellation, raise_if_cancelled

CALLS = 32
TRANSFERS = 8
"""Concurrent transfers of one call. Each call has its own pool, so that a run with many files delays no other run."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Threads:
    """Pool for at most CALLS concurrent calls. Separate from the event loop's pool, which resolves host names."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(CALLS, thread_name_prefix="workspace")

    async def call(self, function: Callable[[Cancellation], Result]) -> Result:
        """Run `function` in a thread. It must return early once its argument is set.

        A thread cannot be cancelled. If the awaiting task is cancelled, the cancellation is set, and CancelledError is
        raised only after the function has returned. The wait is short: the cancellation ends transfers in progress;
        only opening a connection runs until its own timeout.

        Raises HostExhausted if the host has no thread or too few resources for the call.
        """
        cancellation = Cancellation()
        with translate_exhaustion():
            future = self._submit(function, cancellation)
            result = asyncio.wrap_future(future)
            result.add_done_callback(_retrieve_exception)
            try:
                return await asyncio.shield(result)
            except asyncio.CancelledError:
                cancellation.set()
                future.cancel()
                await _wait_until_done(result)
                raise

    def _submit(self, function: Callable[[Cancellation], Result], cancellation: Cancellation) -> Future[Result]:
        try:
            return self._pool.submit(_run, function, cancellation)
        except RuntimeError:
            # The pool has queued the function, although it could not start a thread. A thread that becomes free later
            # must not run a call that was reported as failed.
            cancellation.set()
            raise

    def close(self) -> None:
        """Wait for calls in progress and end the threads."""
        self._pool.shutdown()


def _run(function: Callable[[Cancellation], Result], cancellation: Cancellation) -> Result:
    with cancellation.applied():
        raise_if_cancelled()
        return function(cancellation)


def _retrieve_exception(result: "asyncio.Future[Result]") -> None:
    """Mark the exception as retrieved. A cancelled task does not do so, and asyncio would log it as never retrieved."""
    if not result.cancelled():
        result.exception()


async def _wait_until_done(result: "asyncio.Future[Result]") -> None:
    """Wait for the end of a call, even if the waiting task is cancelled again."""
    while not result.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({result})


def each(function: Callable[[Item], Result], items: Iterable[Item], cancellation: Cancellation) -> list[Result]:
    """Apply `function` to the items, up to TRANSFERS concurrently, and return the results in order.

    After the first error or the cancellation no further item is started. Items in progress are finished, then the error
    is raised; for the cancellation, CallCancelled.
    """

    def apply(item: Item) -> Result:
        with cancellation.applied():
            raise_if_cancelled()
            return function(item)

    work = list(items)
    if len(work) < 2:
        return [apply(item) for item in work]
    with ThreadPoolExecutor(min(TRANSFERS, len(work)), thread_name_prefix="transfer") as pool:
        futures = [pool.submit(apply, item) for item in work]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
        wait(futures)
    for future in futures:
        if not future.cancelled() and (error := future.exception()):
            raise error
    return [future.result() for future in futures]
