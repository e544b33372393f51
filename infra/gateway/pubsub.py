"""Pub/sub for every client of the process over one Redis connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from infra.gateway.encoding import as_text
from infra.gateway.errors import NotSent, RedisUnavailable
from infra.gateway.mailbox import Mailbox
from infra.gateway.resp import Reply, RespConnection, connect, pack
from infra.gateway.settings import GatewaySettings, RedisTarget
from infra.gateway.sse import frame

Key = tuple[bool, bytes]
"""Whether it is a pattern, and the name of the channel or the pattern itself."""

_PING = pack((b"PING",))


class _Topic:
    """A subscription at Redis and those who share it. Messages before its confirmation belong to nobody."""

    def __init__(self, confirmed: asyncio.Future[None]) -> None:
        self.confirmed = confirmed
        self.mailboxes: set[Mailbox] = set()


class Hub:
    def __init__(self, target: RedisTarget, settings: GatewaySettings) -> None:
        self._target = target
        self._settings = settings
        self._connection: RespConnection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._topics: dict[Key, _Topic] = {}
        # One entry for each SUBSCRIBE under way, in order; Redis confirms those of a channel in the same order.
        self._unconfirmed: dict[Key, deque[asyncio.Future[None]]] = {}
        self._closed = False

    @property
    def topics(self) -> int:
        return len(self._topics)

    @property
    def clients(self) -> int:
        return len({mailbox for topic in self._topics.values() for mailbox in topic.mailboxes})

    async def join(self, mailbox: Mailbox, keys: Sequence[Key]) -> None:
        """Returns once Redis has confirmed all of `keys`; from then on the mailbox misses nothing.

        Raises `RedisUnavailable`; the caller calls `leave` in every case.
        """
        connection = await self._connected()
        waits = [self._enter(connection, mailbox, key) for key in keys]
        try:
            async with asyncio.timeout(self._settings.command_timeout_s):
                for confirmed in waits:
                    await asyncio.shield(confirmed)
        except TimeoutError as exc:
            connection.abort()
            raise RedisUnavailable("ERR Redis did not confirm the subscription") from exc

    def leave(self, mailbox: Mailbox, keys: Sequence[Key]) -> None:
        for key in keys:
            topic = self._topics.get(key)
            if topic is None or mailbox not in topic.mailboxes:
                continue
            topic.mailboxes.discard(mailbox)
            if not topic.mailboxes:
                del self._topics[key]
                if self._connection is not None and self._connection.usable:
                    self._connection.write(pack((b"PUNSUBSCRIBE" if key[0] else b"UNSUBSCRIBE", key[1])))

    def end_streams(self) -> None:
        """For shutdown: every stream ends now and no new one begins."""
        self._closed = True
        self._forget_all(RedisUnavailable("ERR gateway is shutting down"))

    async def close(self) -> None:
        self.end_streams()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()

    async def _connected(self) -> RespConnection:
        async with self._connecting:
            if self._closed:
                raise NotSent("ERR gateway is shutting down")
            if self._connection is None or not self._connection.usable:
                if self._keeper is not None:
                    await self._keeper  # it ends with its connection, after the old topics are gone
                self._connection = await connect(self._target, self._settings.connect_timeout_s, on_push=self._received)
                self._keeper = asyncio.create_task(self._keep(self._connection))
            return self._connection

    def _enter(self, connection: RespConnection, mailbox: Mailbox, key: Key) -> asyncio.Future[None]:
        topic = self._topics.get(key)
        if topic is None:
            connection.write(pack((b"PSUBSCRIBE" if key[0] else b"SUBSCRIBE", key[1])))
            confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            confirmed.add_done_callback(_seen)
            self._unconfirmed.setdefault(key, deque()).append(confirmed)
            topic = self._topics[key] = _Topic(confirmed)
        topic.mailboxes.add(mailbox)
        return topic.confirmed

    def _received(self, reply: Reply) -> None:
        if not isinstance(reply, list) or len(reply) < 3:
            return  # an answer to the keeper's PING
        kind, name = reply[0], reply[1]
        if kind == b"message":
            self._deliver((False, name), reply)
        elif kind == b"pmessage":
            self._deliver((True, name), reply)
        elif kind in (b"subscribe", b"psubscribe"):
            self._confirm((kind == b"psubscribe", name))

    def _confirm(self, key: Key) -> None:
        waiting = self._unconfirmed.get(key)
        if not waiting:
            return
        waiting.popleft().set_result(None)
        if not waiting:
            del self._unconfirmed[key]

    def _deliver(self, key: Key, event: list[bytes]) -> None:
        topic = self._topics.get(key)
        if topic is None or not topic.confirmed.done():
            return
        framed = frame(",".join(as_text(part) for part in event))
        for mailbox in topic.mailboxes:
            mailbox.put(framed)

    def _forget_all(self, reason: Exception) -> None:
        topics, self._topics = self._topics, {}
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for topic in topics.values():
            for mailbox in topic.mailboxes:
                mailbox.end()
        for waiting in unconfirmed.values():
            for confirmed in waiting:
                if not confirmed.done():
                    confirmed.set_exception(reason)
                    confirmed.exception()  # whoever waited may have gone: that is no error to report

    async def _keep(self, connection: RespConnection) -> None:
        """Notices a dead connection and ends all streams with it: their clients reconnect and read what they missed."""
        heartbeat_s = self._settings.heartbeat_s
        asked_at = 0.0
        while not connection.lost.done():
            await asyncio.wait({connection.lost}, timeout=heartbeat_s)
            if connection.last_heard < asked_at:
                connection.abort()
            elif connection.usable:
                asked_at = asyncio.get_running_loop().time()
                connection.write(_PING)
        self._forget_all(RedisUnavailable("ERR connection to Redis lost before the subscription was confirmed"))


def _seen(confirmed: asyncio.Future[None]) -> None:
    """A failed subscription whose client has left is nobody's error."""
    if not confirmed.cancelled():
        confirmed.exception()
