"""Bounded set of pipelined connections for ordinary commands and transactions.

Requests share connections. That is safe, because a request's bytes go out in one write: no bytes of another request
can come between its MULTI and its EXEC. The policy rejects commands that change a connection's state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from infra.gateway.connect import connect
from infra.gateway.connection import UNLIMITED, RespConnection
from infra.gateway.errors import NotSent, OutcomeUnknown, RedisUnavailable
from infra.gateway.memory import MemoryShare
from infra.gateway.replies import Replies
from infra.gateway.resp import ReplyReader, pack, value_reader
from infra.gateway.settings import GatewaySettings, RedisTarget

REQUESTS_PER_CONNECTION = 64

_MIN_AGE_S = 1.0
"""Age from which a connection to a replica is replaced, because the address may still lead to the same one."""

_PING = pack((b"PING",))


class Pool:
    """Spreads requests over `size` connections, at most REQUESTS_PER_CONNECTION times `size` at a time."""

    def __init__(
        self,
        target: RedisTarget,
        settings: GatewaySettings,
        *,
        size: int,
        reader: Callable[[], ReplyReader] = value_reader,
    ) -> None:
        self._pool_timeout_s = settings.pool_timeout_s
        self._command_timeout_s = settings.command_timeout_s
        self._capacity = asyncio.Semaphore(size * REQUESTS_PER_CONNECTION)
        self._slots = [_ConnectionSlot(target, settings, reader) for _ in range(size)]

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return sum(slot.open for slot in self._slots)

    @property
    def generation(self) -> int:
        """Number of connections made so far. It changes whenever Redis was restarted."""
        return sum(slot.generation for slot in self._slots)

    async def execute(
        self, payload: bytes, reply_count: int, limit_bytes: int = UNLIMITED, share: MemoryShare | None = None
    ) -> Replies:
        """Send `payload` in one write and return its `reply_count` replies, which are counted in `share`.

        Raises `NotSent` (pool exhausted or Redis unreachable: it did not run), `OutcomeUnknown` (it may have run) or
        `RepliesTooLarge` (more than `limit_bytes` of replies).
        """
        if self._capacity.locked():
            try:
                async with asyncio.timeout(self._pool_timeout_s):
                    await self._capacity.acquire()
            except TimeoutError as exc:
                raise NotSent("ERR gateway is busy: no connection to Redis became free in time") from exc
        else:
            await self._capacity.acquire()  # does not wait, so it needs no timer
        slot = min(self._slots, key=_load)
        slot.load += 1
        try:
            return await self._execute_on(slot, payload, reply_count, limit_bytes, share)
        finally:
            slot.load -= 1
            self._capacity.release()

    async def _execute_on(
        self, slot: _ConnectionSlot, payload: bytes, reply_count: int, limit_bytes: int, share: MemoryShare | None
    ) -> Replies:
        connection = slot.ready_connection() or await slot.checked_connection()
        try:
            replies = connection.send(payload, reply_count, limit_bytes, share)
        except NotSent:
            # The connection closed between the check and the write. Nothing was sent, so one more attempt is safe.
            connection = await slot.checked_connection()
            replies = connection.send(payload, reply_count, limit_bytes, share)
        try:
            async with asyncio.timeout(self._command_timeout_s):
                received = await replies
        except TimeoutError as exc:
            # Later replies would come behind the missing one, so no other request can use the connection either.
            before = connection.received(replies)
            connection.abort()
            text = f"ERR no answer from Redis within {self._command_timeout_s:g} s; the command may have been executed"
            raise OutcomeUnknown(text, before) from exc
        if connection.demoted:
            self._leave_replica()
        return received

    def _leave_replica(self) -> None:
        """Replace all connections: after a failover, the address leads to another Redis."""
        for slot in self._slots:
            slot.retire(_MIN_AGE_S)

    def abort(self) -> None:
        """Break the connections, so that every request under way ends now with an error; accept no more requests."""
        for slot in self._slots:
            slot.abort()

    async def close(self) -> None:
        """Close the connections."""
        for slot in self._slots:
            await slot.close()


class _ConnectionSlot:
    """Holder of one connection, which is made when it is first needed and made again after it broke."""

    def __init__(self, target: RedisTarget, settings: GatewaySettings, reader: Callable[[], ReplyReader]) -> None:
        self._target = target
        self._connect_timeout_s = settings.connect_timeout_s
        self._idle_check_s = settings.idle_check_s
        self._reader = reader
        self._connection: RespConnection | None = None
        self._retired: set[RespConnection] = set()
        self._opening: asyncio.Task[RespConnection] | None = None
        self._closed = False
        self.load = 0
        self.generation = 0

    @property
    def open(self) -> bool:
        return self._connection is not None and self._connection.usable

    def ready_connection(self) -> RespConnection | None:
        """Return the connection if it can be used without a check: it is open, and recently active or busy now."""
        connection = self._connection
        if connection is None or not connection.usable or self._opening is not None:
            return None
        idle_s = asyncio.get_running_loop().time() - connection.last_received_at
        # The load includes the caller: above 1, another request is using the connection, so it is not idle.
        return connection if idle_s < self._idle_check_s or self.load > 1 else None

    async def checked_connection(self) -> RespConnection:
        """Return the open connection after a PING, or a new one. Raises `NotSent`."""
        if self._closed:
            raise NotSent("ERR gateway is shutting down")
        # All waiting requests share one attempt, so that an outage costs each of them a single timeout.
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def _opened(self, task: asyncio.Task[RespConnection]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # mark it as retrieved: asyncio would log it if no request waits for it any more

    async def _open(self) -> RespConnection:
        old = self._connection
        if old is not None and old.usable and await self._answers_ping(old):
            return old
        if old is not None and old.retired:
            # The connection still serves the requests that came behind a reply which was too large.
            self._retired.add(old)
            old.lost.add_done_callback(lambda _: self._retired.discard(old))
        elif old is not None:
            old.abort()
        self._connection = await connect(self._target, self._connect_timeout_s, reader=self._reader)
        self.generation += 1
        return self._connection

    async def _answers_ping(self, connection: RespConnection) -> bool:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await connection.send(_PING, 1)
        except (TimeoutError, RedisUnavailable):
            return False
        return True

    def retire(self, min_age_s: float) -> None:
        """Let the next request make a new connection, unless the present one is younger."""
        connection = self._connection
        if connection is not None and asyncio.get_running_loop().time() - connection.made_at > min_age_s:
            connection.retire()

    def abort(self) -> None:
        self._closed = True
        for connection in self._all():
            connection.abort()

    def _all(self) -> list[RespConnection]:
        return [*self._retired, *([self._connection] if self._connection is not None else [])]

    async def close(self) -> None:
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        for connection in self._all():
            await connection.close()


def _load(slot: _ConnectionSlot) -> int:
    return slot.load
