"""Open a connection to Redis and log in."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from infra.gateway.connection import UNLIMITED, RespConnection
from infra.gateway.errors import NotSent, RedisUnavailable
from infra.gateway.resp import ReplyReader, RespReply, error_text, pack, value_reader
from infra.gateway.settings import RedisTarget

CLIENT_NAME = b"swissbrain-gateway"

_REFUSALS = ("ERR max number of clients reached", "DENIED ")
"""Errors that Redis sends before it has read anything: the second is its protected mode."""
_REFUSAL_LENGTH = 80


async def connect(
    target: RedisTarget,
    timeout_s: float,
    *,
    reader: Callable[[], ReplyReader] = value_reader,
    on_push: Callable[[RespReply], None] | None = None,
    push_limit_bytes: int = UNLIMITED,
) -> RespConnection:
    """Return a connection that is authenticated and has its database selected. Raises `NotSent`."""
    connection: RespConnection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = await _open(target, lambda: RespConnection(reader, on_push, push_limit_bytes))
            await _log_in(connection, target)
    except (OSError, TimeoutError, RedisUnavailable) as exc:
        if connection is not None:
            connection.abort()
            if connection.refusal:
                raise _refused(connection.refusal) from exc
        if isinstance(exc, NotSent):
            raise
        raise NotSent("ERR Redis is not reachable") from exc
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
    for number, reply in enumerate(await connection.send(payload, len(commands))):
        text = error_text(reply)
        if text.startswith(_REFUSALS):
            raise _refused(text)
        # Only the code: the text of an error may quote the arguments, and one of them is the password.
        code = text.split(" ", 1)[0]
        if code and number < required:
            raise NotSent(f"ERR Redis did not accept the gateway's login ({code})")


def _refused(text: str) -> NotSent:
    return NotSent(f"ERR Redis did not accept the connection ({text[:_REFUSAL_LENGTH]})")
