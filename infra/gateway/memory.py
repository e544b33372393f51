"""Bound on the memory that the replies to all requests of a process take until their clients have read them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from time import monotonic

from infra.logging import log

FREE_BYTES = 32 * 1024
"""Bytes of each request's replies that are not counted, so that requests with small replies are always served."""

_LINE_BYTES = 32
"""Counted for each line of a reply: an element is one line or two, and its Python object needs more than its text."""

_STALLED_S = 2.0
_WAIT_S = 5.0
_MAX_WAITING = 16
_LOOK_S = 0.2


class ReplyMemory:
    """Counts the replies that are held for clients: `limit_bytes` of whole ones, and as much of incomplete ones.

    Over the limit, replies are received one after the other, and clients that read nothing lose theirs. A single reply
    may exceed the limit while no other one is held.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.used_bytes = 0
        self._receivers: OrderedDict[MemoryShare, None] = OrderedDict()
        """Requests whose replies are incomplete, in the order in which they began to hold memory."""
        self._readers: OrderedDict[MemoryShare, asyncio.Timeout] = OrderedDict()
        """Requests whose responses are being sent; first those whose clients have read nothing for longest."""
        self._changed = asyncio.Event()
        self._waiting = 0

    def take(self, share: MemoryShare, size: int) -> None:
        """Count bytes that a request has received."""
        self._receivers.setdefault(share)
        share.held_bytes += size
        self.used_bytes += size

    def allows(self, share: MemoryShare) -> bool:
        """Return True if a request may receive more."""
        while self.used_bytes > self._limit_bytes and self._readers:
            slowest = next(iter(self._readers))
            if monotonic() - slowest.read_at < _STALLED_S:
                break
            self._cut_off(slowest)
        if self.used_bytes <= self._limit_bytes:
            return True
        # The first may go on in spite of the other incomplete replies. Otherwise all of them would wait for each other.
        whole_bytes = self.used_bytes - sum(each.held_bytes for each in self._receivers)
        return next(iter(self._receivers), share) is share and (
            not whole_bytes or whole_bytes + share.held_bytes <= self._limit_bytes
        )

    async def wait(self, share: MemoryShare) -> bool:
        """Wait until a request may receive more; return False if that takes too long, or if too many wait."""
        deadline = monotonic() + (_WAIT_S if self._waiting < _MAX_WAITING else 0)
        self._waiting += 1
        try:
            while not (allowed := self.allows(share)) and monotonic() < deadline:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):  # a client becomes slow without any event
                    async with asyncio.timeout(_LOOK_S):
                        await self._changed.wait()
        finally:
            self._waiting -= 1
        return allowed

    def read(self, share: MemoryShare, scope: asyncio.Timeout) -> None:
        """Note that a client has read a part of its response just now. `scope` ends if the client is cut off."""
        share.read_at = monotonic()
        if share.held_bytes:
            if self._receivers.pop(share, self) is None:
                self._changed.set()
            self._readers[share] = scope
            self._readers.move_to_end(share)

    def _cut_off(self, share: MemoryShare) -> None:
        self._readers[share].reschedule(0)
        self.give_back(share)
        log("gateway.slow_client_cut_off", level=logging.WARNING)

    def give_back(self, share: MemoryShare) -> None:
        """Count the memory of a request as free."""
        self.used_bytes -= share.held_bytes
        share.held_bytes = 0
        self._readers.pop(share, None)
        self._receivers.pop(share, None)
        self._changed.set()


class MemoryShare:
    """Replies that one request holds."""

    def __init__(self, memory: ReplyMemory) -> None:
        self._memory = memory
        self._received_bytes = 0
        self._released = False
        self.held_bytes = 0
        self.read_at = 0.0

    def add(self, data: bytes) -> bool:
        """Count received bytes; return False if more must not be received before `wait` has returned."""
        self._received_bytes += len(data)
        if self._received_bytes <= FREE_BYTES or self._released:
            return True
        self._memory.take(self, len(data) + _LINE_BYTES * data.count(b"\r\n"))
        return self._memory.allows(self)

    async def wait(self) -> bool:
        """Wait for memory; return False if there is none in time."""
        return self._released or await self._memory.wait(self)

    def read(self, scope: asyncio.Timeout) -> None:
        """Note that the client has read a part of the response just now. `scope` ends if the client is cut off."""
        self._memory.read(self, scope)

    def release(self) -> None:
        """Give the memory back, at the end of the request."""
        self._released = True
        self._memory.give_back(self)
