"""Bounded buffer of one event-stream client, so that a slow client does not delay the others."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum

_JOINED_BYTES = 64 * 1024


class CloseReason(Enum):
    """Reason why a buffer accepts no more frames."""

    SOURCE_ENDED = "ended"
    """Redis is disconnected or the gateway shuts down. Buffered frames are still delivered."""
    OVERFLOW = "overflow"
    """The client reads too slowly. Buffered frames are dropped and the client is disconnected."""


class StreamBuffer:
    """Frames for one client, at most `limit_bytes` of them (a single frame may be larger)."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self.closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()

    def put(self, frame: bytes) -> None:
        """Append a frame, or close the buffer if it would exceed the limit. Does nothing on a closed buffer."""
        if self.closed.done():
            return
        # An empty buffer takes a frame of any size; otherwise no client could ever receive a large message.
        if self._frames and self._size + len(frame) > self._limit_bytes:
            self.closed.set_result(CloseReason.OVERFLOW)
            self._frames.clear()
        else:
            self._frames.append(frame)
            self._size += len(frame)
        self._changed.set()

    def close(self) -> None:
        """Accept no more frames; those in the buffer can still be taken."""
        if not self.closed.done():
            self.closed.set_result(CloseReason.SOURCE_ENDED)
            self._changed.set()

    async def take(self) -> bytes | None:
        """Wait for frames and return the first ones, joined; None if the buffer is closed and empty."""
        while not self._frames:
            if self.closed.done():
                return None
            self._changed.clear()
            await self._changed.wait()
        # Clients share the frames of a channel. A copy of all of them for each slow client would take far more memory.
        taken = [self._frames.popleft()]
        size = len(taken[0])
        while self._frames and size + len(self._frames[0]) <= _JOINED_BYTES:
            taken.append(self._frames.popleft())
            size += len(taken[-1])
        self._size -= size
        return b"".join(taken)
