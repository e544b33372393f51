"""Bound on the memory that the bodies of all requests of a process take until they are answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from time import monotonic

from infra.gateway.errors import NotSent

FREE_BYTES = 32 * 1024
"""Bodies up to this size are not counted, so that small requests are always served."""

UPLOAD_S = 5.0
"""Time after which a body that is still incomplete gives way to others, if they need its memory."""

_WAIT_S = 20.0
_LOOK_S = 0.2

_BUSY = "ERR gateway is busy: large requests of other clients take its memory"


class RequestMemory:
    """Counts bodies by their announced size, before they are received; `limit_bytes` is for all of them together.

    Over the limit a request waits, and bodies that arrive slowly give way to it. A single body may exceed the limit.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.used_bytes = 0
        self._uploads: dict[asyncio.Timeout, float] = {}
        """Bodies that are incomplete, oldest first, and the time at which each of them began."""
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def body_of(self, size: int) -> AsyncIterator[Callable[[int], None]]:
        """Count a body until the end of the context; yield a function to call with its true size.

        Raises `NotSent` if there is no memory for it in time.
        """
        await self._wait_for(size)
        counted = 0

        def count(true_size: int) -> None:
            nonlocal counted
            self.used_bytes += true_size - counted
            counted = true_size
            self._changed.set()

        count(size)
        try:
            yield count
        finally:
            count(0)

    @contextlib.asynccontextmanager
    async def upload(self) -> AsyncIterator[None]:
        """Receive a body within the context. Raises `NotSent` if it has to give way."""
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._uploads[scope] = monotonic()
                yield
        except TimeoutError as exc:
            raise NotSent(_BUSY) from exc
        finally:
            self._uploads.pop(scope, None)

    async def _wait_for(self, size: int) -> None:
        deadline = monotonic() + _WAIT_S
        while self.used_bytes and self.used_bytes + size > self._limit_bytes:
            now = monotonic()
            if now > deadline:
                raise NotSent(_BUSY)
            oldest = next(iter(self._uploads), None)
            if oldest is not None and now - self._uploads[oldest] > UPLOAD_S:
                oldest.reschedule(0)
                del self._uploads[oldest]
            self._changed.clear()
            with contextlib.suppress(TimeoutError):  # an upload becomes slow without any event
                async with asyncio.timeout(_LOOK_S):
                    await self._changed.wait()
