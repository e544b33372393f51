"""Backoff of the worker: repeated calls, and the delay before a run is tried again.

Two waits are not exponential on purpose and stay where they are: a lease must be renewed before it expires
(`worker.lease`), and a lost claim must be undone soon (`worker.queue.loop`).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from infra.contract.errors import StoreUnavailable

T = TypeVar("T")

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 2.0
MAX_REQUEUE_DELAY_S = 60.0


def attempts(
    *errors: type[Exception], first_s: float, max_s: float, stop: Callable[[], bool] = lambda: False
) -> AsyncRetrying:
    """Return tenacity's attempts of a call that is repeated after any of `errors`.

    The waits are exponential with full jitter: at most `first_s`, then twice that and so on, never more than `max_s`.
    Once `stop` returns True, the next failure is raised.
    """
    return AsyncRetrying(
        retry=retry_if_exception_type(errors),
        wait=wait_random_exponential(multiplier=first_s, max=max_s),
        stop=lambda _: stop(),
        reraise=True,
    )


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat `call` until Redis replies, with the waits of `attempts`; return the reply.

    Only for calls that may be sent twice. Raises any other error of `call`. There is no time limit, because the loss of
    the lease cancels the caller.
    """
    # Not by `attempts`: tenacity takes more processor time than the call, which nearly always succeeds the first time.
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(random.uniform(0, wait_s))  # noqa: S311
        wait_s = min(2 * wait_s, MAX_WAIT_S)


def requeue_delay_ms(attempt: int) -> int:
    """Return the delay before a run is tried again after its given attempt: exponential with full jitter, in ms.

    The run waits in the queue, not in this process, so no retry loop is involved.
    """
    return int(random.uniform(0, min(MAX_REQUEUE_DELAY_S, 2.0**attempt)) * 1000)  # noqa: S311
