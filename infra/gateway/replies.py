"""Replies to commands that were sent together, while they are received."""

from __future__ import annotations

import asyncio

from infra.gateway.memory import MemoryShare
from infra.gateway.resp import RespReply


class Replies(list[RespReply]):
    """Replies to one batch; `size`: the bytes in which they were received."""

    size = 0


class RepliesTooLarge(Exception):
    """The replies to a batch exceed its limit. `replies`: those that were whole before."""

    def __init__(self, replies: Replies) -> None:
        super().__init__("the replies are too large")
        self.replies = replies


class ReplyTooDeep(RepliesTooLarge):
    """A reply has more lists inside each other than the parser accepts; a script may return such a reply."""


class ReplyBatch:
    """Commands that were sent together, and the replies received for them so far."""

    __slots__ = ("future", "has_memory", "limit_bytes", "replies", "reply_count", "share")

    def __init__(
        self, future: asyncio.Future[Replies], reply_count: int, limit_bytes: int, share: MemoryShare | None
    ) -> None:
        self.future = future
        self.reply_count = reply_count
        self.limit_bytes = limit_bytes
        self.share = share
        self.has_memory = True
        self.replies = Replies()

    def receive(self, data: bytes) -> None:
        """Count received bytes."""
        self.replies.size += len(data)
        self.has_memory = self.share is None or self.share.add(data)

    @property
    def too_large(self) -> bool:
        return self.replies.size > self.limit_bytes

    def end(self) -> None:
        """Give the replies to the caller, unless the caller was cancelled."""
        if self.future.done():
            return
        if self.too_large:
            self.replies.pop()
            self.fail(RepliesTooLarge(self.replies))
        else:
            self.future.set_result(self.replies)

    def fail(self, error: Exception) -> None:
        """Raise an error for the caller, unless the caller was cancelled."""
        if not self.future.done():
            self.future.set_exception(error)
