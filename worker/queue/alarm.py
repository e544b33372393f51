"""When to look at the queue without having been woken by a token."""

import asyncio
import random
import time

JITTER_S = 0.3
"""Workers that wait for the same moment spread over so long; the first one's look tells the others to wait on."""


class Alarm:
    """A moment that can be moved while somebody waits for it.

    Nudges come in the order in which they were sent, but the answer to a claim comes on another connection: what was
    heard since the claim was `asked` may be later than what the answer knows, so it counts beside it.
    """

    def __init__(self) -> None:
        self._at: float | None = None
        self._heard: float | None = None
        self._moved = asyncio.Event()

    def set(self, after_ms: int) -> None:
        """A nudge: ring after so many milliseconds, whatever was set before."""
        self._heard = _moment(after_ms)
        self._move(self._heard)

    def hasten(self, after_ms: int) -> None:
        """A nudge: ring after so many milliseconds unless that is later than what was set before."""
        at = _moment(after_ms)
        self._heard = _earlier(self._heard, at)
        self._move(_earlier(self._at, at))

    def asked(self) -> None:
        """A claim is sent now."""
        self._heard = None

    def answered(self, after_ms: int | None) -> None:
        """It was answered: ring after so many milliseconds, or not at all, but for what was heard since."""
        self._move(_earlier(self._heard, None if after_ms is None else _moment(after_ms)))

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


def _earlier(one: float | None, other: float | None) -> float | None:
    return min((at for at in (one, other) if at is not None), default=None)


def _moment(after_ms: int) -> float:
    return time.monotonic() + after_ms / 1000 + random.uniform(0, JITTER_S)  # noqa: S311
