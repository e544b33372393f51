"""Waiting and blocking calls, in the two kinds that AsyncClient and Client need.

The generated client uses `call` and `sleep` where its source uses `async_call` and `async_sleep`.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


async def async_call(function: Callable[[], T]) -> T:
    """Return the result of a function that blocks, such as one that reads a file: it runs in another thread."""
    return await anyio.to_thread.run_sync(function)


def call(function: Callable[[], T]) -> T:
    """Return the result of a function that may block."""
    return function()


async def async_sleep(seconds: float) -> None:
    """Let other tasks run for some seconds."""
    await anyio.sleep(seconds)


def sleep(seconds: float) -> None:
    """Block this thread for some seconds."""
    time.sleep(seconds)
