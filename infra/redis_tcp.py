"""The worker's Redis: TCP through redis-py, with a connection of its own for blocking."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from infra.contract.errors import PASSING, StoreRejected, StoreUnavailable
from infra.contract.ports import Argument, Reply
from infra.contract.scripts import Script
from infra.settings import RedisTcpSettings

T = TypeVar("T")

BLOCK_MARGIN_S = 5.0
"""How long after its timeout a blocking call may answer before its connection is taken for dead."""

_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""By these the kernel finds out within a minute that the other end has vanished without a word, at no command. By
itself it would take two hours, during which a worker hears neither tokens nor nudges."""


class RedisTcp:
    """Implements the ports `Redis` and `LogFeed`, and the blocking wait for a wake token.

    redis-py's own retries are off: whether a step may be repeated is for the caller to say. Its response callbacks
    are cleared because the port promises raw RESP2 shapes.
    """

    def __init__(self, settings: RedisTcpSettings) -> None:
        self._timeout_s = settings.timeout_s
        self._redis = self._client(settings, settings.timeout_s)
        self._blocking = self._client(settings, None)

    async def command(self, *args: Argument) -> Reply:
        """Run one command."""
        return await self._call(cast("Awaitable[Reply]", self._redis.execute_command(*args)))  # type: ignore[no-untyped-call]

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run commands in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await self._call(pipeline.execute())

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Run a script by its digest, or by its text if the server does not know it."""
        tail = (len(keys), *keys, *args)
        try:
            return await self.command("EVALSHA", script.sha1, *tail)
        except StoreRejected as exc:
            if not isinstance(exc.__cause__, exceptions.NoScriptError):
                raise
            return await self.command("EVAL", script.text, *tail)

    async def wait_token(self, key: str, timeout_s: float) -> bool:
        """Block until the list has an element and take it; False after `timeout_s`. Raises StoreUnavailable."""
        popped = self._blocking.execute_command("BLPOP", key, timeout_s)  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(timeout_s + BLOCK_MARGIN_S):
                return await self._call(popped) is not None
        except TimeoutError:
            await self._blocking.connection_pool.disconnect()
            raise StoreUnavailable("Redis did not end a blocking call in time") from None

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        """Enter once the subscription is confirmed; iterate over messages until the connection ends."""
        async with self._blocking.pubsub() as pubsub:
            await self._call(pubsub.subscribe(channel))
            confirmation = await self._call(pubsub.get_message(timeout=self._timeout_s))
            if not confirmation:
                raise StoreUnavailable(f"no confirmation of the subscription within {self._timeout_s} s")
            yield _messages(pubsub)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
        await self._blocking.aclose()

    @staticmethod
    def _client(settings: RedisTcpSettings, socket_timeout: float | None) -> "redis.Redis":
        over_tcp: dict[str, Any] = {"socket_keepalive": True, "socket_keepalive_options": _keepalive_options()}
        client: redis.Redis = redis.Redis.from_url(
            settings.url,
            protocol=2,
            decode_responses=True,
            socket_timeout=socket_timeout,
            socket_connect_timeout=settings.timeout_s,
            **({} if settings.url.startswith("unix:") else over_tcp),
            retry=Retry(NoBackoff(), 0),
        )
        client.response_callbacks.clear()
        return client

    @staticmethod
    async def _call(answer: Awaitable[T]) -> T:
        """Await an answer; map redis-py's errors to the domain's."""
        try:
            return await answer
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as exc:
            raise StoreUnavailable(f"no answer from Redis: {type(exc).__name__}") from exc
        except exceptions.RedisError as exc:
            code = getattr(exc, "status_code", None) or str(exc).partition(" ")[0]
            if code in PASSING:
                raise StoreUnavailable(f"Redis cannot do that now: {code}") from exc
            raise StoreRejected(str(exc)) from exc


def _keepalive_options() -> dict[int, int]:
    """Those that this platform has."""
    return {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}


async def _messages(pubsub: "redis.client.PubSub") -> AsyncIterator[str]:
    try:
        async for message in pubsub.listen():
            if message["type"] == "message":
                yield message["data"]
    except (exceptions.RedisError, OSError):
        return
