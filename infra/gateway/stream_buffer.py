"""Bounded buffers of event-stream clients, so that slow clients neither delay the others nor fill the memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from enum import Enum

_JOINED_BYTES = 64 * 1024


class CloseReason(Enum):
    """Reason why a buffer accepts no more frames."""

    SOURCE_ENDED = "ended"
    """Redis is disconnected or the gateway shuts down. Buffered frames are still delivered."""
    OVERFLOW = "overflow"
    """The client reads too slowly. Buffered frames are dropped and the client is disconnected."""


class StreamMemory:
    """Counts the frames that all buffers hold, a frame of several clients once.

    Over the limit, the clients that have read nothing for longest are cut off. A single one may hold more.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.used_bytes = 0
        self._holders: dict[int, int] = {}
        """Number of buffers that hold a frame, by the frame's identity."""
        self._slowest: OrderedDict[StreamBuffer, None] = OrderedDict()
        """Buffers that hold frames; first those whose clients have read nothing for longest."""

    def hold(self, buffer: StreamBuffer, frame: bytes) -> None:
        """Count a frame of a buffer."""
        holders = self._holders.get(id(frame), 0)
        self._holders[id(frame)] = holders + 1
        self.used_bytes += 0 if holders else len(frame)
        self._slowest.setdefault(buffer)
        while self.used_bytes > self._limit_bytes and len(self._slowest) > 1:
            next(iter(self._slowest)).cut_off()

    def release(self, frame: bytes) -> None:
        """Count a frame as no longer held by one of its buffers."""
        holders = self._holders.pop(id(frame)) - 1
        if holders:
            self._holders[id(frame)] = holders
        else:
            self.used_bytes -= len(frame)

    def read(self, buffer: StreamBuffer) -> None:
        """Note that the client of a buffer with frames has read something just now."""
        if buffer in self._slowest:
            self._slowest.move_to_end(buffer)

    def forget(self, buffer: StreamBuffer) -> None:
        """Note that a buffer holds no frames."""
        self._slowest.pop(buffer, None)


class StreamBuffer:
    """Frames for one client, at most `limit_bytes` of them (a single frame may be larger)."""

    def __init__(self, limit_bytes: int, memory: StreamMemory) -> None:
        self._limit_bytes = limit_bytes
        self._memory = memory
        self._frames: deque[bytes] = deque()
        self._taken: list[bytes] = []
        self._size = 0
        self._changed = asyncio.Event()
        self.closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()

    def put(self, frame: bytes) -> None:
        """Append a frame, or close the buffer if it would exceed the limit. Does nothing on a closed buffer."""
        if self.closed.done():
            return
        # An empty buffer takes a frame of any size; otherwise no client could ever receive a large message.
        if self._frames and self._size + len(frame) > self._limit_bytes:
            self.cut_off()
            return
        self._frames.append(frame)
        self._size += len(frame)
        self._memory.hold(self, frame)
        self._changed.set()

    def close(self) -> None:
        """Accept no more frames; those in the buffer can still be taken."""
        if not self.closed.done():
            self.closed.set_result(CloseReason.SOURCE_ENDED)
            self._changed.set()

    def cut_off(self) -> None:
        """Drop all frames and accept no more, because the client reads too slowly."""
        if not self.closed.done():
            self.closed.set_result(CloseReason.OVERFLOW)
        self.release()
        self._changed.set()

    def release(self) -> None:
        """Drop all frames, those that were taken included."""
        for frame in (*self._taken, *self._frames):
            self._memory.release(frame)
        self._taken.clear()
        self._frames.clear()
        self._memory.forget(self)

    async def take(self) -> bytes | None:
        """Wait for frames and return the first ones, joined; None if the buffer is closed and empty.

        They are held until the next call, because the client is reading them.
        """
        for frame in self._taken:
            self._memory.release(frame)
        self._taken.clear()
        while not self._frames:
            self._memory.forget(self)
            if self.closed.done():
                return None
            self._changed.clear()
            await self._changed.wait()
        # Clients share the frames of a channel. A copy of all of them for each slow client would take far more memory.
        self._taken.append(self._frames.popleft())
        size = len(self._taken[0])
        while self._frames and size + len(self._frames[0]) <= _JOINED_BYTES:
            self._taken.append(self._frames.popleft())
            size += len(self._taken[-1])
        self._size -= size
        return b"".join(self._taken)

    def read(self) -> None:
        """Note that the client has read a part of the frames just now."""
        self._memory.read(self)
