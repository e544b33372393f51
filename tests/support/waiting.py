"""Waits for conditions, with a timeout."""

import asyncio
import time
from collections.abc import Awaitable, Callable

PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.3
LIMIT_S = 60.0
"""Longer than a busy machine stands still. Less than the limit of a test, which would not say what never happened."""


def wait_until(predicate: Callable[[], object], description: str, timeout_s: float = LIMIT_S) -> None:
    """Return once the predicate is true. Raises AssertionError with `description` after the timeout."""
    began = time.monotonic()
    while not predicate():
        time.sleep(_pause_s(began, timeout_s, description))


async def until(predicate: Callable[[], Awaitable[object]], description: str, timeout_s: float = LIMIT_S) -> None:
    """Return once the awaited predicate is true. Raises AssertionError with `description` after the timeout."""
    began = time.monotonic()
    while not await predicate():
        await asyncio.sleep(_pause_s(began, timeout_s, description))


def _pause_s(began: float, timeout_s: float, description: str) -> float:
    """Return a pause that grows with the wait: a predicate may ask servers, whose work slows down what it waits for."""
    waited = time.monotonic() - began
    assert waited < timeout_s, f"never happened: {description}"
    return min(max(PAUSE_S, waited / 10), LONGEST_PAUSE_S)
