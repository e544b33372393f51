"""One pipelined connection to Redis: matches replies to commands, and bounds what it stores of them."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

import hiredis

from infra.gateway.errors import NotSent, OutcomeUnknown
from infra.gateway.memory import MemoryShare
from infra.gateway.replies import Replies, RepliesTooLarge, ReplyBatch, ReplyTooDeep
from infra.gateway.resp import ReplyReader, RespReply, error_text
from infra.gateway.skip import ReplySkipper, Retained

UNLIMITED = 1 << 62

_NO_MEMORY = "ERR gateway is busy: large replies to other requests take its memory; the command may have been executed"

_PIECE_BYTES = 16 * 1024
"""Received bytes that are parsed without a pause: at most 4,096 elements."""
_SKIPPED_BYTES = 1 << 30
_SKIPPED_ELEMENTS = 2_000_000
"""Bounds of what is skipped for the sake of other requests on the connection: any single string, or 2 s of work."""


class RespConnection(asyncio.Protocol):
    """Matches replies to batches in order. Replies without a batch (pub/sub, MONITOR) go to `on_push`.

    A reply to `on_push` of more than `push_limit_bytes` breaks the connection.
    """

    def __init__(
        self,
        new_reader: Callable[[], ReplyReader],
        on_push: Callable[[RespReply], None] | None = None,
        push_limit_bytes: int = UNLIMITED,
    ) -> None:
        self._new_reader = new_reader
        self._reader = new_reader()
        self._on_push = on_push
        self._push_limit_bytes = push_limit_bytes
        self._push_size = 0
        self._batches: deque[ReplyBatch] = deque()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes] = deque()
        self._pumping = False
        self._retained = Retained()
        self._skipper: ReplySkipper | None = None
        self._skipped_bytes = 0
        self._waiting: asyncio.Task[None] | None = None
        self.retired = False
        """True once replies are skipped or wait for memory: the connection serves the requests that it has, and accepts
        no more."""
        self.demoted = False
        """True once Redis has refused a write because it is a replica, as after a failover."""
        self.refusal = ""
        """Error with which Redis has refused the connection, before it has received a command."""
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.made_at = self.last_received_at = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            # The kernel finds out that the other end vanished, even if nothing is sent.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        self.last_received_at = self._loop.time()
        if len(data) <= _PIECE_BYTES and not self._pieces and self._waiting is None:
            self._consume(data)
        else:
            self._pieces.extend(data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))
        if self._pieces and not self._pumping:
            self._pause()
            self._pump()

    def _pause(self) -> None:
        """Stop to read, so that Redis waits and the unparsed bytes stay few."""
        if not self._pumping and self._transport is not None:
            self._pumping = True
            self._transport.pause_reading()

    def _pump(self) -> None:
        """Parse one piece of what was received, and the next one in the next turn of the loop."""
        if self._transport is None or self._transport.is_closing():
            self._pieces.clear()
        if self._pieces and self._waiting is None:
            self._consume(self._pieces.popleft())
        if self._waiting is not None:
            return
        if self._pieces:
            self._loop.call_soon(self._pump)
            return
        self._pumping = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _consume(self, data: bytes) -> None:
        try:
            if self._skipper is None:
                self._parse(data)
            else:
                self._skip(self._skipper, data)
        except (hiredis.HiredisError, ValueError):
            self.abort()

    def _parse(self, data: bytes) -> None:
        batch = self._batches[0] if self._batches else None
        shared = len(self._batches) > 1
        if batch is not None and not shared:
            batch.receive(data)
        self._reader.feed(data)
        count = 0
        while (reply := self._next_reply(data, count)) is not False:
            count += 1
            self._assign(reply)
            if not self._reader.has_data():
                self._retained.clear()
                self._push_size = 0
                return
        if self._skipper is not None:
            return
        if batch is None:
            self._push_size = len(data) if count else self._push_size + len(data)
            if self._push_size > self._push_limit_bytes:
                self.abort()
            return
        self._retained.add(data, count)
        if self._batches and self._batches[0] is batch:
            # Only bytes of this batch count: to count too many would reject replies of a legal size.
            if shared:
                batch.receive(data)
            self._bound(batch)

    def _bound(self, batch: ReplyBatch) -> None:
        """Stop to receive replies to the front batch if they are too large, or while there is no memory for them."""
        if batch.too_large:
            self._discard_rest(batch, RepliesTooLarge(batch.replies))
        elif batch.share is not None and not batch.has_memory:
            # Requests that come now use another connection, instead of waiting as well.
            self.retired = True
            self._pause()
            self._waiting = asyncio.create_task(self._wait_for_memory(batch, batch.share))

    async def _wait_for_memory(self, batch: ReplyBatch, share: MemoryShare) -> None:
        """Continue when there is memory for the rest of the replies to the front batch, or without the batch."""
        has_memory = await share.wait()
        self._waiting = None
        if not has_memory:
            self._discard_rest(batch, OutcomeUnknown(_NO_MEMORY, batch.replies))
        self._pump()

    def _next_reply(self, data: bytes, count: int) -> RespReply:
        """Return the next reply, False if it is incomplete. `count` replies of `data` came before."""
        try:
            return self._reader.gets()
        except hiredis.ProtocolError as exc:
            if not self._batches or "nesting" not in str(exc):
                raise
            self._retained.add(data, count)
            self._discard_rest(self._batches[0], ReplyTooDeep(self._batches[0].replies))
            return False

    def _assign(self, reply: RespReply) -> None:
        if not self._batches:
            self.refusal = error_text(reply)
            if self._on_push is None:
                self.abort()  # an unexpected reply: from here on, replies would go to the wrong commands
            else:
                self._on_push(reply)
            return
        batch = self._batches[0]
        batch.replies.append(reply)
        if error_text(reply).startswith("READONLY "):
            self.demoted = True
        if len(batch.replies) == batch.reply_count:
            self._batches.popleft()
            batch.end()
            if self.retired and not self._batches:
                self.abort()

    def _discard_rest(self, batch: ReplyBatch, error: Exception) -> None:
        """End the front batch with an error, and get rid of the rest of its replies."""
        batch.fail(error)
        # With no other request on the connection it is cheapest to break it: then Redis stops to send, too. Otherwise
        # the rest is skipped, because the other requests would fail without knowing whether they have run.
        if len(self._batches) == 1 or not self._retained.complete:
            self.abort()
            return
        self.retired = True
        self._skipper = ReplySkipper(self._retained.replies + batch.reply_count - len(batch.replies))
        self._pieces.extendleft(reversed(self._retained.pieces))
        self._retained.clear()

    def _skip(self, skipper: ReplySkipper, data: bytes) -> None:
        self._skipped_bytes += len(data)
        rest = skipper.feed(data)
        if rest is not None:
            self._skipper = None
            self._batches.popleft()
            self._reader = self._new_reader()
            if self._batches and rest:
                self._parse(rest)
            elif not self._batches:
                self.abort()
        elif self._skipped_bytes > _SKIPPED_BYTES or skipper.elements > _SKIPPED_ELEMENTS:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for batch in self._batches:
            text = "ERR connection to Redis lost before the answer; the command may have been executed"
            batch.fail(OutcomeUnknown(text, batch.replies))
        self._batches.clear()
        if self._waiting is not None:
            self._waiting.cancel()
        self._retained.clear()
        self._reader = self._new_reader()  # frees what it has of a reply
        if not self.lost.done():
            self.lost.set_result(None)

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and not self.retired

    def write(self, payload: bytes) -> None:
        """Send bytes. Raises `NotSent` if the connection is already closed."""
        if self._transport is None or not self.usable:
            raise NotSent("ERR connection to Redis lost")
        self._transport.write(payload)

    def send(
        self, payload: bytes, reply_count: int, limit_bytes: int = UNLIMITED, share: MemoryShare | None = None
    ) -> asyncio.Future[Replies]:
        """Send commands; return a future of their `reply_count` replies.

        The future raises `OutcomeUnknown` if the connection breaks or `share` gets no memory, and `RepliesTooLarge` for
        more than `limit_bytes` of replies. The limit is exact for the only request on the connection, otherwise up to
        16 KiB higher. Cancelling the future discards the replies. Raises `NotSent` if the connection is already closed.
        """
        self.write(payload)
        batch = ReplyBatch(self._loop.create_future(), reply_count, limit_bytes, share)
        self._batches.append(batch)
        return batch.future

    def received(self, future: asyncio.Future[Replies]) -> Replies:
        """Return the replies received so far for a future of `send`, which may be cancelled."""
        return next((batch.replies for batch in self._batches if batch.future is future), Replies())

    def retire(self) -> None:
        """Accept no more requests, and close after those under way."""
        self.retired = True
        if not self._batches:
            self.abort()

    def abort(self) -> None:
        """Break the connection now; every batch under way fails with `OutcomeUnknown`."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Break the connection and wait until it is closed."""
        if self._transport is not None:
            self._transport.abort()
            await self.lost
