"""Redis of the worker: TCP through redis-py, with separate connections for blocking calls."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from infra.contract.errors import TRANSIENT_CODES, StoreRefuses, StoreRejected, StoreUnavailable
from infra.contract.redis import Argument, Reply, Script
from infra.settings import RedisTcpSettings

T = TypeVar("T")
OnCommand: TypeAlias = Callable[[str, str], None]
_PendingCommand = tuple[Sequence[Argument], "asyncio.Future[Reply]"]

BLOCK_MARGIN_S = 5.0
"""A blocking call without a reply this long after its timeout is considered to be on a dead connection."""

_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""Socket options with which the kernel notices within a minute that the other end has vanished silently, even while no
command is sent. The default takes two hours, during which a worker would receive neither wake tokens nor cancellations.
"""

_LOST_CONNECTION = (exceptions.ConnectionError, exceptions.TimeoutError, OSError, RuntimeError, AttributeError)
"""Errors of a lost connection. For a write to a connection that was reset while idle, which redis-py still takes for
open, uvloop raises RuntimeError and asyncio's own event loop AttributeError."""

FAILURES = (exceptions.RedisError, *_LOST_CONNECTION)
"""Errors of a call."""


class RedisTcp:
    """Implements the ports `Redis` and `LogFeed`, and the blocking wait for a wake token.

    `on_command` is called for each command that is sent: its name in lower case, and the name of the script if it has
    one.
    """

    def __init__(self, settings: RedisTcpSettings, on_command: OnCommand = lambda _name, _script: None) -> None:
        self._on_command = on_command
        self._timeout_s = settings.timeout_s
        self._redis = self._client(settings)
        # With connections of their own, because a blocking call that hangs closes all of them.
        self._blocking = self._client(settings)
        self._pending: list[_PendingCommand] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def command(self, *args: Argument) -> Reply:
        """Run one command, in one round trip with all others submitted in the same turn of the event loop."""
        self._on_command(str(args[0]).lower(), "")
        return await self._submit(args)

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run commands in one round trip."""
        for command in commands:
            self._on_command(str(command[0]).lower(), "")
        return await asyncio.gather(*[self._submit(command) for command in commands])

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Run a script by its digest, or by its text if the server does not know the digest."""
        tail = (len(keys), *keys, *args)
        try:
            self._on_command("evalsha", script.name)
            return await self._submit(("EVALSHA", script.sha1, *tail))
        except StoreRejected as exc:
            if not isinstance(exc.__cause__, exceptions.NoScriptError):
                raise
            self._on_command("eval", script.name)
            return await self._submit(("EVAL", script.text, *tail))

    async def wait_token(self, key: str, timeout_s: float) -> bool:
        """Block until the list has an element and remove it; False after `timeout_s`. Raises StoreUnavailable."""
        self._on_command("blpop", "")
        popped = self._blocking.execute_command("BLPOP", key, timeout_s)  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(timeout_s + BLOCK_MARGIN_S):
                return await self._call(popped) is not None
        except TimeoutError:
            # Closes every blocking connection, because the others lead to the same silent server.
            await self._blocking.connection_pool.disconnect()
            raise StoreUnavailable(f"Redis did not end a blocking call within {timeout_s + BLOCK_MARGIN_S} s") from None
        except StoreUnavailable as exc:
            if isinstance(exc.__cause__, exceptions.ReadOnlyError):
                await self._blocking.connection_pool.disconnect()
            raise

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        """Enter once the subscription is confirmed; iterate over messages until the connection ends."""
        async with self._blocking.pubsub() as pubsub:
            self._on_command("subscribe", "")
            await self._call(pubsub.subscribe(channel))
            confirmation = await self._call(pubsub.get_message(timeout=self._timeout_s))
            if not confirmation:
                raise StoreUnavailable(f"Redis did not confirm the subscription within {self._timeout_s} s")
            yield _messages(pubsub)

    async def close(self) -> None:
        """Wait for the commands under way, then close all connections."""
        await asyncio.gather(*self._tasks)
        await self._redis.aclose()
        await self._blocking.aclose()

    def _submit(self, command: Sequence[Argument]) -> "asyncio.Future[Reply]":
        loop = asyncio.get_running_loop()
        # The first command of a turn schedules the round trip; the others of the turn join it.
        if not self._pending:
            loop.call_soon(self._start_batch)
        reply: asyncio.Future[Reply] = loop.create_future()
        self._pending.append((command, reply))
        return reply

    def _start_batch(self) -> None:
        batch, self._pending = self._pending, []
        task = asyncio.create_task(self._send_batch(batch))
        self._tasks.add(task)  # the event loop holds only a weak reference to a task
        task.add_done_callback(self._tasks.discard)

    async def _send_batch(self, batch: Sequence[_PendingCommand]) -> None:
        """Send commands in one write; give each caller that was not cancelled its reply or error."""
        try:
            replies = await self._exchange([command for command, _ in batch])
        except Exception as exc:  # noqa: BLE001 whatever it is: without a reply, the callers would wait for ever
            replies = [exc] * len(batch)
        for (_, future), reply in zip(batch, replies, strict=True):
            if future.done():
                continue
            if isinstance(reply, Exception):
                future.set_exception(_to_contract_error(reply))
                future.exception()  # mark it as retrieved: asyncio would log it if the caller is cancelled now
            else:
                future.set_result(reply)

    async def _exchange(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send commands in one write; return the reply or the error to each."""
        # On a connection itself, with one deadline: a pipeline of redis-py needs twice the processor time, because it
        # has a deadline and layers of retries and metrics for the write and for each reply.
        pool = self._redis.connection_pool
        async with asyncio.timeout(self._timeout_s):
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.send_packed_command(connection.pack_commands(commands))
                replies = [await _reply(connection) for _ in commands]
                if any(isinstance(reply, exceptions.ReadOnlyError) for reply in replies):
                    await connection.disconnect()  # after a failover, a new connection leads to the new master
                return replies
            finally:
                await pool.release(connection)

    @staticmethod
    def _client(settings: RedisTcpSettings) -> "redis.Redis":
        over_tcp: dict[str, Any] = {"socket_keepalive": True, "socket_keepalive_options": _keepalive_options()}
        client: redis.Redis = redis.Redis.from_url(
            settings.url,
            protocol=2,
            decode_responses=True,
            # A value that is not UTF-8 must not cost the replies beside it: whoever decodes it meets the surrogates.
            encoding_errors="surrogateescape",
            socket_timeout=None,
            socket_connect_timeout=settings.timeout_s,
            **({} if settings.url.startswith("unix:") else over_tcp),
            # No retries, because only the caller knows whether a command is safe to repeat.
            retry=Retry(NoBackoff(), 0),
        )
        # The callbacks would reshape replies, but the port promises their RESP2 shape.
        client.response_callbacks.clear()
        return client

    @staticmethod
    async def _call(reply: Awaitable[T]) -> T:
        """Await a reply; raise the contract's errors instead of the errors of redis-py."""
        try:
            return await reply
        except FAILURES as exc:
            raise _to_contract_error(exc) from exc


def _to_contract_error(exc: Exception) -> StoreUnavailable | StoreRejected:
    """Return the contract's error for an error of redis-py or of the operating system."""
    error: StoreUnavailable | StoreRejected
    code = getattr(exc, "status_code", None) or str(exc).partition(" ")[0]
    if isinstance(exc, _LOST_CONNECTION):
        error = StoreUnavailable(f"no reply from Redis: {type(exc).__name__}")
    elif code in TRANSIENT_CODES:
        error = StoreRefuses(f"{TRANSIENT_CODES[code]} ({code})")
    else:
        error = StoreRejected(str(exc))
    error.__cause__ = exc
    return error


async def _reply(connection: redis.Connection) -> Any:
    """Return the reply to one command; an error of Redis is returned, that of a lost connection raised."""
    try:
        return await connection.read_response()
    except exceptions.ResponseError as exc:
        return exc


def _keepalive_options() -> dict[int, int]:
    """Return the options of _KEEPALIVE that this platform has."""
    return {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}


async def _messages(pubsub: "redis.client.PubSub") -> AsyncIterator[str]:
    try:
        async for message in pubsub.listen():
            if message["type"] == "message":
                yield message["data"]
    except FAILURES:
        return
