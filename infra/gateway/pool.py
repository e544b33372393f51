"""A bounded set of pipelined connections for ordinary commands and transactions.

Requests share connections. That is safe because a request's bytes go out in one write: nothing of another request
can land between its MULTI and its EXEC, and no command that changes a connection's state is let through (`policy`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from infra.gateway.errors import NotSent, OutcomeUnknown, RedisUnavailable
from infra.gateway.resp import Reply, ReplyReader, RespConnection, connect, pack, value_reader
from infra.gateway.settings import GatewaySettings, RedisTarget

REQUESTS_PER_CONNECTION = 64

_PING = pack((b"PING",))


class Pool:
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
        self._slots = asyncio.Semaphore(size * REQUESTS_PER_CONNECTION)
        self._lanes = [_Lane(target, settings, reader) for _ in range(size)]

    @property
    def connections(self) -> int:
        return sum(lane.open for lane in self._lanes)

    @property
    def generation(self) -> int:
        """Grows with every connection made, so it changes when Redis was restarted."""
        return sum(lane.generation for lane in self._lanes)

    async def execute(self, payload: bytes, want: int) -> list[Reply]:
        """Sends `payload` as one write and gives its `want` replies.

        Raises `NotSent` (busy or unreachable: it did not run) or `OutcomeUnknown` (it may have run).
        """
        if self._slots.locked():
            try:
                async with asyncio.timeout(self._pool_timeout_s):
                    await self._slots.acquire()
            except TimeoutError as exc:
                raise NotSent("ERR gateway is busy: no connection to Redis became free in time") from exc
        else:
            await self._slots.acquire()
        lane = min(self._lanes, key=_load)
        lane.load += 1
        try:
            return await self._on_lane(lane, payload, want)
        finally:
            lane.load -= 1
            self._slots.release()

    async def _on_lane(self, lane: _Lane, payload: bytes, want: int) -> list[Reply]:
        connection = lane.ready() or await lane.fresh()
        try:
            answer = connection.send(payload, want)
        except NotSent:  # it closed while this request waited for it; nothing was sent, so once more is safe
            connection = await lane.fresh()
            answer = connection.send(payload, want)
        try:
            async with asyncio.timeout(self._command_timeout_s):
                return await answer
        except TimeoutError as exc:
            connection.abort()
            text = f"ERR no answer from Redis within {self._command_timeout_s:g} s; the command may have been executed"
            raise OutcomeUnknown(text, []) from exc

    def give_up(self) -> None:
        """Breaks the connections, so that every request under way is answered now, with an error."""
        for lane in self._lanes:
            lane.give_up()

    async def close(self) -> None:
        for lane in self._lanes:
            await lane.close()


class _Lane:
    """One place for a connection, filled when first needed and again when it broke."""

    def __init__(self, target: RedisTarget, settings: GatewaySettings, reader: Callable[[], ReplyReader]) -> None:
        self._target = target
        self._connect_timeout_s = settings.connect_timeout_s
        self._idle_check_s = settings.idle_check_s
        self._reader = reader
        self._connection: RespConnection | None = None
        self._opening: asyncio.Task[RespConnection] | None = None
        self._closed = False
        self.load = 0
        self.generation = 0

    @property
    def open(self) -> bool:
        return self._connection is not None and self._connection.usable

    def ready(self) -> RespConnection | None:
        """The connection if it can be used at once: open, and heard of recently or busy right now."""
        connection = self._connection
        if connection is None or not connection.usable or self._opening is not None:
            return None
        idle_s = asyncio.get_running_loop().time() - connection.last_heard
        return connection if idle_s < self._idle_check_s or self.load > 1 else None

    async def fresh(self) -> RespConnection:
        """A checked or new connection; all who wait share one attempt, so an outage costs each one timeout."""
        if self._closed:
            raise NotSent("ERR gateway is shutting down")
        if self._opening is None:
            self._opening = asyncio.create_task(self._refresh())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    def _opened(self, task: asyncio.Task[RespConnection]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # those who wait see it; if nobody waits any more, nobody has to

    async def _refresh(self) -> RespConnection:
        old = self._connection
        if old is not None and old.usable and await self._alive(old):
            return old
        if old is not None:
            old.abort()
        self._connection = await connect(self._target, self._connect_timeout_s, reader=self._reader)
        self.generation += 1
        return self._connection

    async def _alive(self, connection: RespConnection) -> bool:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await connection.send(_PING, 1)
        except (TimeoutError, RedisUnavailable):
            return False
        return True

    def give_up(self) -> None:
        self._closed = True
        if self._connection is not None:
            self._connection.abort()

    async def close(self) -> None:
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._connection is not None:
            await self._connection.close()


def _load(lane: _Lane) -> int:
    return lane.load
