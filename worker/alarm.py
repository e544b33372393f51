"""When to look at the queue without having been woken by a token."""

import asyncio
import random
import time

JITTER_S = 0.3
"""Workers that wait for the same moment spread over so long; the first one's look tells the others to wait on."""


class Alarm:
    """A moment that can be moved while somebody waits for it."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._moved = asyncio.Event()

    def set(self, after_ms: int | None) -> None:
        """Ring after so many milliseconds, or not at all, whatever was set before."""
        self._move(None if after_ms is None else _moment(after_ms))

    def hasten(self, after_ms: int) -> None:
        """Ring after so many milliseconds unless that is later than what was set before."""
        at = _moment(after_ms)
        if self._at is None or at < self._at:
            self._move(at)

    async def wait(self) -> None:
        """Return when it rings; it is silent then until it is set again."""
        while self._at is None or (left := self._at - time.monotonic()) > 0:
            self._moved.clear()
            try:
                async with asyncio.timeout(None if self._at is None else left):
                    await self._moved.wait()
            except TimeoutError:
                break
        self._at = None

    def _move(self, at: float | None) -> None:
        self._at = at
        self._moved.set()


def _moment(after_ms: int) -> float:
    return time.monotonic() + after_ms / 1000 + random.uniform(0, JITTER_S)  # noqa: S311
