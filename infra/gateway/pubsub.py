"""Pub/sub for all clients of the process over one Redis connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from infra.gateway.connect import connect
from infra.gateway.connection import RespConnection
from infra.gateway.encoding import as_text
from infra.gateway.errors import CommandRejected, NotSent, RedisUnavailable
from infra.gateway.resp import ErrorReply, RespReply, pack
from infra.gateway.settings import GatewaySettings, RedisTarget
from infra.gateway.sse import frame
from infra.gateway.stream_buffer import StreamBuffer

TopicKey = tuple[bool, bytes]
"""True for a pattern, False for a channel; and the pattern or the channel's name."""


class _RedisSubscription:
    """One subscription at Redis and the clients that share it."""

    def __init__(self, confirmed: asyncio.Future[None]) -> None:
        self.confirmed = confirmed
        self.buffers: set[StreamBuffer] = set()


class Hub:
    """Subscribes to each channel or pattern once, and copies its messages to all clients that joined it."""

    def __init__(self, target: RedisTarget, settings: GatewaySettings) -> None:
        self._target = target
        self._settings = settings
        self._connection: RespConnection | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._subscriptions: dict[TopicKey, _RedisSubscription] = {}
        # For each command without a reply, oldest first: a future if it subscribes. Redis replies in this order, and
        # its errors do not name the channel.
        self._unanswered: deque[asyncio.Future[None] | None] = deque()
        self._closed = False

    @property
    def topics(self) -> int:
        """Number of channels and patterns that are subscribed to."""
        return len(self._subscriptions)

    @property
    def clients(self) -> int:
        """Number of clients that have joined at least one channel or pattern."""
        return len({buffer for subscription in self._subscriptions.values() for buffer in subscription.buffers})

    async def join(self, buffer: StreamBuffer, keys: Sequence[TopicKey]) -> None:
        """Add a client; return once Redis has confirmed all of `keys`. From then on the buffer gets every message.

        The caller must call `leave` in every case. Raises `RedisUnavailable`, or `CommandRejected` with Redis's error.
        """
        connection = await self._connect()
        confirmations = [self._subscribe(connection, buffer, key) for key in keys]
        try:
            async with asyncio.timeout(self._settings.command_timeout_s):
                for confirmed in confirmations:
                    await asyncio.shield(confirmed)
        except TimeoutError as exc:
            connection.abort()
            raise RedisUnavailable("ERR Redis did not confirm the subscription") from exc

    def leave(self, buffer: StreamBuffer, keys: Sequence[TopicKey]) -> None:
        """Remove a client; unsubscribe from what no client has joined any more."""
        for key in keys:
            subscription = self._subscriptions.get(key)
            if subscription is None or buffer not in subscription.buffers:
                continue
            subscription.buffers.discard(buffer)
            if not subscription.buffers:
                del self._subscriptions[key]
                if self._connection is not None and self._connection.usable:
                    self._write(self._connection, (b"PUNSUBSCRIBE" if key[0] else b"UNSUBSCRIBE", key[1]))

    def end_all(self) -> None:
        """End every stream and reject new ones, for a shutdown."""
        self._closed = True
        self._drop_subscriptions(RedisUnavailable("ERR gateway is shutting down"))

    async def close(self) -> None:
        """End every stream and close the connection."""
        self.end_all()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()

    async def _connect(self) -> RespConnection:
        async with self._connecting:
            if self._closed:
                raise NotSent("ERR gateway is shutting down")
            if self._connection is None or not self._connection.usable:
                if self._watcher is not None:
                    # The watcher drops all subscriptions when its connection ends. A new subscription must come after
                    # that, or the watcher would drop it, too.
                    await self._watcher
                self._connection = await connect(
                    self._target,
                    self._settings.connect_timeout_s,
                    on_push=self._received,
                    push_limit_bytes=self._settings.max_response_bytes,
                )
                self._watcher = asyncio.create_task(self._watch(self._connection))
            return self._connection

    def _subscribe(self, connection: RespConnection, buffer: StreamBuffer, key: TopicKey) -> asyncio.Future[None]:
        subscription = self._subscriptions.get(key)
        if subscription is None:
            confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            confirmed.add_done_callback(_mark_retrieved)
            self._write(connection, (b"PSUBSCRIBE" if key[0] else b"SUBSCRIBE", key[1]), confirmed)
            subscription = self._subscriptions[key] = _RedisSubscription(confirmed)
        subscription.buffers.add(buffer)
        return subscription.confirmed

    def _write(
        self, connection: RespConnection, command: tuple[bytes, ...], confirmed: asyncio.Future[None] | None = None
    ) -> None:
        connection.write(pack(command))
        self._unanswered.append(confirmed)

    def _received(self, reply: RespReply) -> None:
        kind = reply[0] if isinstance(reply, list) and reply else None
        if kind in (b"message", b"pmessage"):
            self._deliver((kind == b"pmessage", reply[1]), reply)
            return
        confirmed = self._unanswered.popleft() if self._unanswered else None
        if confirmed is not None and isinstance(reply, ErrorReply):
            confirmed.set_exception(CommandRejected(str(reply)))
        elif confirmed is not None:
            confirmed.set_result(None)

    def _deliver(self, key: TopicKey, event: list[bytes]) -> None:
        subscription = self._subscriptions.get(key)
        # A message before the confirmation belongs to an earlier subscription that was left. The new clients do not
        # expect it before their own confirmation.
        if subscription is None or not subscription.confirmed.done():
            return
        framed = frame(",".join(as_text(part) for part in event))
        for buffer in subscription.buffers:
            buffer.put(framed)

    def _drop_subscriptions(self, reason: Exception) -> None:
        subscriptions, self._subscriptions = self._subscriptions, {}
        unanswered, self._unanswered = self._unanswered, deque()
        for subscription in subscriptions.values():
            for buffer in subscription.buffers:
                buffer.close()
        for confirmed in unanswered:
            if confirmed is not None:
                confirmed.set_exception(reason)
                _mark_retrieved(confirmed)

    async def _watch(self, connection: RespConnection) -> None:
        """Send a PING every heartbeat; end all streams when the connection is lost or does not answer."""
        # The clients of ended streams reconnect and read from the log what they missed; a silent stream would not.
        heartbeat_s = self._settings.heartbeat_s
        ping_sent_at = 0.0
        while not connection.lost.done():
            await asyncio.wait({connection.lost}, timeout=heartbeat_s)
            if connection.last_received_at < ping_sent_at:
                connection.abort()
            elif connection.usable:
                ping_sent_at = asyncio.get_running_loop().time()
                self._write(connection, (b"PING",))
        self._drop_subscriptions(RedisUnavailable("ERR connection to Redis lost before the subscription was confirmed"))


def _mark_retrieved(confirmed: asyncio.Future[None]) -> None:
    """Mark the exception as retrieved; otherwise asyncio logs it if all clients have left."""
    if not confirmed.cancelled():
        confirmed.exception()
