"""The three endpoints that stream: /subscribe, /psubscribe and /monitor."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Receive, Send

from infra.gateway.connect import connect
from infra.gateway.encoding import as_text
from infra.gateway.errors import CommandRejected, NotSent
from infra.gateway.pubsub import Hub
from infra.gateway.resp import ErrorReply, RespReply, pack
from infra.gateway.settings import GatewaySettings, RedisTarget
from infra.gateway.sse import frame, serve
from infra.gateway.stream_buffer import CloseReason, StreamBuffer, StreamMemory

# A monitor is a debugging aid that slows Redis down, and each one holds its own connection.
MAX_MONITORS = 4

MAX_NAMES = 1000
"""Channels or patterns of one stream. Each one costs the gateway and Redis work and memory."""

_HELD_BUFFERS = 16
"""The frames of all slow clients together may take the memory of so many full buffers."""

_MONITOR = pack((b"MONITOR",))


class StreamEndpoints:
    """Event streams of subscriptions and monitors, and the way to end them all."""

    def __init__(self, target: RedisTarget, settings: GatewaySettings) -> None:
        self.hub = Hub(target, settings)
        self.memory = StreamMemory(_HELD_BUFFERS * settings.subscriber_buffer_bytes)
        self._target = target
        self._settings = settings
        self._monitors: set[StreamBuffer] = set()
        self._closed = False

    @property
    def monitors(self) -> int:
        """Number of open monitors."""
        return len(self._monitors)

    async def subscribe(
        self, names: Sequence[bytes], pattern: bool, receive: Receive, send: Send
    ) -> CloseReason | None:
        """Stream messages; return why the stream was closed, None if the client left.

        Raises `CommandRejected` or `RedisUnavailable` before anything was sent to the client.
        """
        if len(names) > MAX_NAMES:
            raise CommandRejected(f"ERR no more than {MAX_NAMES} channels or patterns in one stream")
        keys = [(pattern, name) for name in dict.fromkeys(names)]
        kind = "psubscribe" if pattern else "subscribe"
        buffer = StreamBuffer(self._settings.subscriber_buffer_bytes, self.memory)
        try:
            await self.hub.join(buffer, keys)
            greeting = [frame(f"{kind},{as_text(name)},{count}") for count, (_, name) in enumerate(keys, 1)]
            return await serve(buffer, greeting, self._settings.heartbeat_s, receive, send)
        finally:
            self.hub.leave(buffer, keys)
            buffer.release()

    async def monitor(self, receive: Receive, send: Send) -> CloseReason | None:
        """Stream the commands that Redis executes; return why the stream was closed, None if the client left.

        Raises `CommandRejected` or `RedisUnavailable` before anything was sent to the client.
        """
        if self._closed:
            raise NotSent("ERR gateway is shutting down")
        if len(self._monitors) >= MAX_MONITORS:
            raise CommandRejected(f"ERR no more than {MAX_MONITORS} monitors at a time")
        buffer = StreamBuffer(self._settings.subscriber_buffer_bytes, self.memory)
        self._monitors.add(buffer)
        try:
            return await self._monitor(buffer, receive, send)
        finally:
            self._monitors.discard(buffer)
            buffer.release()

    async def _monitor(self, buffer: StreamBuffer, receive: Receive, send: Send) -> CloseReason | None:
        def push(reply: RespReply) -> None:
            buffer.put(frame(as_text(reply)))

        settings = self._settings
        connection = await connect(
            self._target, settings.connect_timeout_s, on_push=push, push_limit_bytes=settings.max_response_bytes
        )
        try:
            [reply] = await connection.send(_MONITOR, 1)
            if isinstance(reply, ErrorReply):
                raise CommandRejected(str(reply))
            connection.lost.add_done_callback(lambda _: buffer.close())
            return await serve(buffer, [frame('"OK"')], self._settings.heartbeat_s, receive, send)
        finally:
            await connection.close()

    def end_all(self) -> None:
        """End every stream and reject new ones, for a shutdown."""
        self._closed = True
        self.hub.end_all()
        for buffer in self._monitors:
            buffer.close()

    async def close(self) -> None:
        """End every stream and close the pub/sub connection."""
        self.end_all()
        await self.hub.close()
