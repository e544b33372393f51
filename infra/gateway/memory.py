"""Bound on the memory that the replies to all requests of a process take until their clients have read them."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from time import monotonic

from infra.logging import log

FREE_BYTES = 32 * 1024
"""Bytes of each request's replies that are not counted, so that requests with small replies are always served."""

_LINE_BYTES = 32
"""Counted for each line of a reply: an element is one line or two, and its Python object needs more than its text."""

_STALLED_S = 2.0


class ReplyMemory:
    """Counts the replies that are held for clients, and takes them from clients that do not read if they are too large.

    A single request may exceed the limit while no other one holds anything.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.used_bytes = 0
        self.readers: OrderedDict[MemoryShare, asyncio.Timeout] = OrderedDict()
        """Responses that are being sent, first those whose clients have read nothing for longest."""

    def take(self, share: MemoryShare, size: int) -> bool:
        """Count bytes for a request; return False if there is no memory for them."""
        share.held_bytes += size
        self.used_bytes += size
        while self.used_bytes > self._limit_bytes and self.readers:
            slowest = next(iter(self.readers))
            if monotonic() - slowest.read_at < _STALLED_S:
                break
            slowest.cut_off()
        return self.used_bytes <= self._limit_bytes or self.used_bytes == share.held_bytes


class MemoryShare:
    """Replies that one request holds."""

    def __init__(self, memory: ReplyMemory) -> None:
        self._memory = memory
        self._received_bytes = 0
        self.held_bytes = 0
        self.read_at = 0.0

    def add(self, data: bytes) -> bool:
        """Count received bytes; return False if there is no memory for them."""
        self._received_bytes += len(data)
        if self._received_bytes <= FREE_BYTES:
            return True
        return self._memory.take(self, len(data) + _LINE_BYTES * data.count(b"\r\n"))

    def reading(self, scope: asyncio.Timeout) -> None:
        """Note that the client has read a part of the response just now. `scope` ends if the client is cut off."""
        self.read_at = monotonic()
        if self.held_bytes:
            self._memory.readers[self] = scope
            self._memory.readers.move_to_end(self)

    def cut_off(self) -> None:
        """Stop to send the response to a client that does not read it, and release its memory."""
        scope = self._memory.readers[self]
        self.release()
        scope.reschedule(0)
        log("gateway.slow_client_cut_off", level=logging.WARNING)

    def release(self) -> None:
        """Give the memory back, at the end of the request."""
        self._memory.used_bytes -= self.held_bytes
        self.held_bytes = 0
        self._memory.readers.pop(self, None)
