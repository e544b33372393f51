"""The three endpoints that stream: /subscribe, /psubscribe and /monitor."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Receive, Send

from infra.gateway.encoding import as_text
from infra.gateway.errors import NotSent, Refused
from infra.gateway.mailbox import Ending, Mailbox
from infra.gateway.pubsub import Hub
from infra.gateway.resp import ErrorReply, Reply, connect, pack
from infra.gateway.settings import GatewaySettings, RedisTarget
from infra.gateway.sse import frame, serve

# A monitor is a debugging aid that slows Redis down, and each one holds a connection of its own.
MAX_MONITORS = 4

_MONITOR = pack((b"MONITOR",))


class Streams:
    def __init__(self, target: RedisTarget, settings: GatewaySettings) -> None:
        self.hub = Hub(target, settings)
        self._target = target
        self._settings = settings
        self._monitors: set[Mailbox] = set()
        self._closed = False

    @property
    def monitors(self) -> int:
        return len(self._monitors)

    async def subscribe(self, names: Sequence[bytes], pattern: bool, receive: Receive, send: Send) -> Ending | None:
        """Raises `RedisUnavailable` before anything was sent to the client."""
        keys = [(pattern, name) for name in dict.fromkeys(names)]
        kind = "psubscribe" if pattern else "subscribe"
        mailbox = Mailbox(self._settings.subscriber_buffer_bytes)
        try:
            await self.hub.join(mailbox, keys)
            greeting = [frame(f"{kind},{as_text(name)},{count}") for count, (_, name) in enumerate(keys, 1)]
            return await serve(mailbox, greeting, self._settings.heartbeat_s, receive, send)
        finally:
            self.hub.leave(mailbox, keys)

    async def monitor(self, receive: Receive, send: Send) -> Ending | None:
        """Raises `Refused` or `RedisUnavailable` before anything was sent to the client."""
        if self._closed:
            raise NotSent("ERR gateway is shutting down")
        if len(self._monitors) >= MAX_MONITORS:
            raise Refused(f"ERR no more than {MAX_MONITORS} monitors at a time")
        mailbox = Mailbox(self._settings.subscriber_buffer_bytes)
        self._monitors.add(mailbox)
        try:
            return await self._monitor(mailbox, receive, send)
        finally:
            self._monitors.discard(mailbox)

    async def _monitor(self, mailbox: Mailbox, receive: Receive, send: Send) -> Ending | None:
        def push(reply: Reply) -> None:
            mailbox.put(frame(as_text(reply)))

        connection = await connect(self._target, self._settings.connect_timeout_s, on_push=push)
        try:
            [reply] = await connection.send(_MONITOR, 1)
            if isinstance(reply, ErrorReply):
                raise Refused(str(reply))
            connection.lost.add_done_callback(lambda _: mailbox.end())
            return await serve(mailbox, [frame('"OK"')], self._settings.heartbeat_s, receive, send)
        finally:
            await connection.close()

    def end(self) -> None:
        """For shutdown: every stream ends now and no new one begins."""
        self._closed = True
        self.hub.end_streams()
        for mailbox in self._monitors:
            mailbox.end()

    async def close(self) -> None:
        self.end()
        await self.hub.close()
