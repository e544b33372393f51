"""Repeating a replay-safe call until Redis answers."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from infra.contract.errors import StoreUnavailable

T = TypeVar("T")

MAX_WAIT_S = 2.0


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """Call again and again, with jittered waits of at most MAX_WAIT_S, while Redis cannot be reached.

    Only for calls that may be sent twice. Ends with the answer, with another error, or with cancellation.
    """
    wait = wait_random_exponential(multiplier=0.1, max=MAX_WAIT_S)
    async for attempt in AsyncRetrying(retry=retry_if_exception_type(StoreUnavailable), wait=wait, reraise=True):
        with attempt:
            return await call()
    raise AssertionError("retrying without a limit ends only by returning or raising")
