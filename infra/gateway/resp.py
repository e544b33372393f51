"""One connection to Redis: RESP2, pipelined, with the exact text of errors."""

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

RespReply = Any
"""bytes, int, None, ErrorReply, or a list of these; from a raw reader always bytes."""

CLIENT_NAME = b"swissbrain-gateway"


class ErrorReply(Exception):
    """Error reply of Redis, as a value. Its text is exactly the text on the wire."""


# The type stub of hiredis declares only commands of one word.
_pack = cast("Callable[[tuple[bytes | str, ...]], bytes]", hiredis.pack_command)


def pack(command: Sequence[bytes | str]) -> bytes:
    """Encode a command for the wire."""
    return _pack(tuple(command))


class ReplyReader(Protocol):
    """Incremental parser of replies. `gets` returns the next reply, False if it is incomplete."""

    def feed(self, data: bytes, /) -> object: ...
    def gets(self) -> RespReply: ...


def value_reader() -> ReplyReader:
    """Return a parser of replies as Python values."""
    return hiredis.Reader(replyError=ErrorReply)


class _Batch:
    """Commands that were sent together, and the replies received for them so far."""

    __slots__ = ("future", "replies", "reply_count")

    def __init__(self, future: asyncio.Future[list[RespReply]], reply_count: int) -> None:
        self.future = future
        self.reply_count = reply_count
        self.replies: list[RespReply] = []


class RespConnection(asyncio.Protocol):
    """Matches replies to batches in order. Replies without a batch (pub/sub, MONITOR) go to `on_push`."""

    def __init__(self, reader: ReplyReader, on_push: Callable[[RespReply], None] | None = None) -> None:
        self._reader = reader
        self._on_push = on_push
        self._batches: deque[_Batch] = deque()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.last_received_at = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            # The kernel finds out that the other end vanished, even if nothing is sent.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        self.last_received_at = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._assign(reply)
        except hiredis.HiredisError:
            self.abort()

    def _assign(self, reply: RespReply) -> None:
        if not self._batches:
            if self._on_push is None:
                self.abort()  # an unexpected reply: from here on, replies would go to the wrong commands
            else:
                self._on_push(reply)
            return
        batch = self._batches[0]
        batch.replies.append(reply)
        if len(batch.replies) == batch.reply_count:
            self._batches.popleft()
            if not batch.future.done():  # the caller may have been cancelled; its replies still had to be read
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
        """Send bytes. Raises `NotSent` if the connection is already closed."""
        if self._transport is None or self._transport.is_closing():
            raise NotSent("ERR connection to Redis lost before the command was sent")
        self._transport.write(payload)

    def send(self, payload: bytes, reply_count: int) -> asyncio.Future[list[RespReply]]:
        """Send commands; return a future of their `reply_count` replies.

        The future raises `OutcomeUnknown` if the connection breaks; cancelling it discards the replies.
        Raises `NotSent` if the connection is already closed.
        """
        self.write(payload)
        batch = _Batch(self._loop.create_future(), reply_count)
        self._batches.append(batch)
        return batch.future

    def abort(self) -> None:
        """Break the connection now; every batch under way fails with `OutcomeUnknown`."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Break the connection and wait until it is closed."""
        if self._transport is not None:
            self._transport.abort()
            await self.lost


async def connect(
    target: RedisTarget,
    timeout_s: float,
    *,
    reader: Callable[[], ReplyReader] = value_reader,
    on_push: Callable[[RespReply], None] | None = None,
) -> RespConnection:
    """Return a connection that is authenticated and has its database selected. Raises `NotSent`."""
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
    except BaseException:  # cancelled: without this the half-open connection would stay
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
    required = len(commands)
    # The name only helps operators who read CLIENT LIST, so its reply is not checked: an ACL may forbid the command.
    commands.append(("CLIENT", "SETNAME", CLIENT_NAME))
    payload = b"".join(pack(command) for command in commands)
    for reply in (await connection.send(payload, len(commands)))[:required]:
        text = str(reply).encode() if isinstance(reply, ErrorReply) else bytes(reply).removeprefix(b"-")
        if isinstance(reply, ErrorReply) or reply.startswith(b"-"):  # the second is how a raw reader shows an error
            # Only the code: the text of an error may quote the arguments, and one of them is the password.
            code = text.split(b" ", 1)[0].decode("ascii", "replace")
            raise NotSent(f"ERR Redis did not accept the gateway's login ({code}); the command was not sent")
