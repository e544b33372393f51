"""What waits for one event-stream client, bounded, so that a slow one costs the others nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum


class Ending(Enum):
    ENDED = "ended"
    """No more will come (Redis gone, shutdown): what is waiting is still delivered."""
    OVERFLOW = "overflow"
    """The client is too slow: it is cut off."""


class Mailbox:
    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self.ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def put(self, frame: bytes) -> None:
        if self.ending.done():
            return
        if self._frames and self._size + len(frame) > self._limit_bytes:
            self.ending.set_result(Ending.OVERFLOW)
            self._frames.clear()
        else:
            self._frames.append(frame)
            self._size += len(frame)
        self._wake.set()

    def end(self) -> None:
        if not self.ending.done():
            self.ending.set_result(Ending.ENDED)
            self._wake.set()

    async def take(self) -> bytes | None:
        """Everything that waits, as one piece; None when no more will come."""
        while not self._frames:
            if self.ending.done():
                return None
            self._wake.clear()
            await self._wake.wait()
        frames = b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        return frames
