"""Waits for conditions, with a timeout."""

import asyncio
import time
from collections.abc import Awaitable, Callable

PAUSE_S = 0.01


def wait_until(predicate: Callable[[], object], description: str, timeout_s: float = 20.0) -> None:
    """Return once the predicate is true. Raises AssertionError with `description` after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, f"never happened: {description}"
        time.sleep(PAUSE_S)


async def until(predicate: Callable[[], Awaitable[object]], description: str, timeout_s: float = 20.0) -> None:
    """Return once the awaited predicate is true. Raises AssertionError with `description` after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not await predicate():
        assert time.monotonic() < deadline, f"never happened: {description}"
        await asyncio.sleep(PAUSE_S)
