"""Divide the work of a large request into slices, so that other requests wait for one slice and not for all of it."""

from __future__ import annotations

import asyncio
from time import perf_counter

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from infra.asgi import wait_for_disconnect

SLICE_S = 0.002
"""Time after which a request yields. Another request needs about six turns of the loop, and waits one slice in each."""

PACED_COMMANDS = 32
"""Small commands of a batch that are worked on before the clock is looked at."""


class Pacer:
    """Pauses of one request. A pause lets other requests run, and finds out whether the client is still connected."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self._slice_ends_at = perf_counter() + SLICE_S

    @property
    def due(self) -> bool:
        """True if the slice is used up."""
        return perf_counter() >= self._slice_ends_at

    def restart(self) -> None:
        """Begin a new slice, after the request has waited for something else."""
        self._slice_ends_at = perf_counter() + SLICE_S

    async def pause(self) -> None:
        """Let other requests run; call it only after the body was read. Raises ClientDisconnect."""
        # Started with the first pause, because most requests are too small to need a task.
        if self._watcher is None:
            self._watcher = asyncio.create_task(wait_for_disconnect(self._receive))
        await asyncio.sleep(0)
        if self._watcher.done():
            raise ClientDisconnect
        self.restart()

    def close(self) -> None:
        """Stop to watch the connection."""
        if self._watcher is not None:
            self._watcher.cancel()
