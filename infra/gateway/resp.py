"""One connection to Redis: RESP2, pipelined, errors kept word for word."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import hiredis

from infra.gateway.errors import NotSent, OutcomeUnknown, RedisUnavailable
from infra.gateway.settings import RedisTarget

Reply = Any
"""bytes, int, None, ErrorReply, or a list of replies; from a raw reader always bytes."""

CLIENT_NAME = b"swissbrain-gateway"


class ErrorReply(Exception):
    """An error Redis answered with, as a value: its text is exactly what was on the wire."""


# The stub of hiredis knows only commands of one word.
_pack = cast("Callable[[tuple[bytes | str, ...]], bytes]", hiredis.pack_command)


def pack(command: Sequence[bytes | str]) -> bytes:
    return _pack(tuple(command))


class ReplyReader(Protocol):
    def feed(self, data: bytes, /) -> object: ...
    def gets(self) -> Reply: ...


def value_reader() -> ReplyReader:
    return hiredis.Reader(replyError=ErrorReply)


class _Batch:
    __slots__ = ("future", "replies", "want")

    def __init__(self, future: asyncio.Future[list[Reply]], want: int) -> None:
        self.future = future
        self.want = want
        self.replies: list[Reply] = []


class RespConnection(asyncio.Protocol):
    """Batches are answered in order; replies nobody asked for (pub/sub, MONITOR) go to `on_push`."""

    def __init__(self, reader: ReplyReader, on_push: Callable[[Reply], None] | None = None) -> None:
        self._reader = reader
        self._on_push = on_push
        self._batches: deque[_Batch] = deque()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.last_heard = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        self.last_heard = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
        except hiredis.HiredisError:
            self.abort()

    def _take(self, reply: Reply) -> None:
        if not self._batches:
            if self._on_push is None:
                self.abort()
            else:
                self._on_push(reply)
            return
        batch = self._batches[0]
        batch.replies.append(reply)
        if len(batch.replies) == batch.want:
            self._batches.popleft()
            if not batch.future.done():
                batch.future.set_result(batch.replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for batch in self._batches:
            if not batch.future.done():
                text = "ERR connection to Redis lost before the answer; the command may have been executed"
                batch.future.set_exception(OutcomeUnknown(text, batch.replies))
        self._batches.clear()
        if not self.lost.done():
            self.lost.set_result(None)

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def write(self, payload: bytes) -> None:
        """Raises `NotSent` when the connection is known to be gone."""
        if self._transport is None or self._transport.is_closing():
            raise NotSent("ERR connection to Redis lost before the command was sent")
        self._transport.write(payload)

    def send(self, payload: bytes, want: int) -> asyncio.Future[list[Reply]]:
        """The future gives `want` replies or raises `OutcomeUnknown`; cancelling it drops the replies."""
        self.write(payload)
        batch = _Batch(self._loop.create_future(), want)
        self._batches.append(batch)
        return batch.future

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            await self.lost


async def connect(
    target: RedisTarget,
    timeout_s: float,
    *,
    reader: Callable[[], ReplyReader] = value_reader,
    on_push: Callable[[Reply], None] | None = None,
) -> RespConnection:
    """A connection that is logged in and on its database; raises `NotSent` when there is none to be had."""
    connection: RespConnection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = await _open(target, lambda: RespConnection(reader(), on_push))
            await _log_in(connection, target)
    except (OSError, TimeoutError, RedisUnavailable) as exc:
        if connection is not None:
            connection.abort()
        if isinstance(exc, NotSent):
            raise
        raise NotSent("ERR Redis is not reachable; the command was not sent") from exc
    except BaseException:
        if connection is not None:
            connection.abort()
        raise
    return connection


async def _open(target: RedisTarget, factory: Callable[[], RespConnection]) -> RespConnection:
    loop = asyncio.get_running_loop()
    if target.path:
        _, connection = await loop.create_unix_connection(factory, target.path)
        return connection
    context = ssl.create_default_context(cafile=target.ca_file) if target.tls else None
    _, connection = await loop.create_connection(
        factory, target.host, target.port, ssl=context, server_hostname=target.host if context else None
    )
    return connection


async def _log_in(connection: RespConnection, target: RedisTarget) -> None:
    commands: list[tuple[bytes | str, ...]] = []
    if target.password:
        commands.append(("AUTH", target.user, target.password) if target.user else ("AUTH", target.password))
    if target.db:
        commands.append(("SELECT", str(target.db)))
    needed = len(commands)
    # Only a help to operators who read CLIENT LIST, so a refusal by an ACL does not matter.
    commands.append(("CLIENT", "SETNAME", CLIENT_NAME))
    payload = b"".join(pack(command) for command in commands)
    for reply in (await connection.send(payload, len(commands)))[:needed]:
        text = str(reply).encode() if isinstance(reply, ErrorReply) else bytes(reply).removeprefix(b"-")
        if isinstance(reply, ErrorReply) or reply.startswith(b"-"):
            code = text.split(b" ", 1)[0].decode("ascii", "replace")
            raise NotSent(f"ERR Redis did not accept the gateway's login ({code}); the command was not sent")
