"""Waiting for the first of several things."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def wait_any(
    *waits: Coroutine[Any, Any, Any], also: asyncio.Task[Any] | None = None, timeout_s: float | None = None
) -> None:
    """Wait until one of the coroutines or the task `also` is done, or `timeout_s` has passed.

    The other coroutines are cancelled; `also` is not. Raises the exception of a coroutine that failed.
    """
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    watched = [*tasks, also] if also else tasks
    try:
        await asyncio.wait(watched, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
