"""The worker's Redis: TCP through redis-py, with a connection of its own for blocking."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from infra.contract.errors import TRANSIENT_CODES, StoreRejected, StoreUnavailable
from infra.contract.redis import Argument, Reply, Script
from infra.settings import RedisTcpSettings

T = TypeVar("T")
_Asked = tuple[Sequence[Argument], "asyncio.Future[Reply]"]

BLOCK_MARGIN_S = 5.0
"""How long after its timeout a blocking call may answer before its connection is taken for dead."""

_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""By these the kernel finds out within a minute that the other end has vanished without a word, at no command. By
itself it would take two hours, during which a worker hears neither tokens nor nudges."""


FAILURES = (exceptions.RedisError, OSError, RuntimeError)
"""What a call may end with. RuntimeError is uvloop's, for a connection that was reset while nobody used it: to redis-py
it looks as if it were open."""


class RedisTcp:
    """Implements the ports `Redis` and `LogFeed`, and the blocking wait for a wake token.

    redis-py's own retries are off: whether a step may be repeated is for the caller to say. Its response callbacks
    are cleared because the port promises raw RESP2 shapes.
    """

    def __init__(self, settings: RedisTcpSettings) -> None:
        self._timeout_s = settings.timeout_s
        self._redis = self._client(settings, settings.timeout_s)
        self._blocking = self._client(settings, None)
        self._asked: list[_Asked] = []
        self._exchanges: set[asyncio.Task[None]] = set()

    async def command(self, *args: Argument) -> Reply:
        """Run one command, in one round trip with all others that are asked for in the same turn of the event loop."""
        return await self._ask(args)

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run commands in one round trip."""
        return await asyncio.gather(*[self._ask(command) for command in commands])

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
        await asyncio.gather(*self._exchanges)
        await self._redis.aclose()
        await self._blocking.aclose()

    def _ask(self, command: Sequence[Argument]) -> "asyncio.Future[Reply]":
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._send)
        answer: asyncio.Future[Reply] = loop.create_future()
        self._asked.append((command, answer))
        return answer

    def _send(self) -> None:
        asked, self._asked = self._asked, []
        exchange = asyncio.create_task(self._exchange(asked))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._exchanges.discard)

    async def _exchange(self, asked: Sequence[_Asked]) -> None:
        """One write and as many replies. Who was cancelled meanwhile does not hear of the reply; the others do."""
        pipeline = self._redis.pipeline(transaction=False)
        for command, _ in asked:
            pipeline.execute_command(*command)
        try:
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except Exception as exc:  # noqa: BLE001 whatever it is: who asked would wait for ever
            replies = [exc] * len(asked)
        for (_, answer), reply in zip(asked, replies, strict=True):
            if answer.done():
                continue
            if isinstance(reply, Exception):
                answer.set_exception(_in_our_terms(reply))
                answer.exception()  # whoever asked may be cancelled before it looks: that is no error to report
            else:
                answer.set_result(reply)

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
        except FAILURES as exc:
            raise _in_our_terms(exc) from exc


def _in_our_terms(exc: Exception) -> StoreUnavailable | StoreRejected:
    """The domain's error for one of redis-py or of the system."""
    error: StoreUnavailable | StoreRejected
    code = getattr(exc, "status_code", None) or str(exc).partition(" ")[0]
    if isinstance(exc, exceptions.ConnectionError | exceptions.TimeoutError | OSError | RuntimeError):
        error = StoreUnavailable(f"no answer from Redis: {type(exc).__name__}")
    elif code in TRANSIENT_CODES:
        error = StoreUnavailable(f"Redis cannot do that now: {code}")
    else:
        error = StoreRejected(str(exc))
    error.__cause__ = exc
    return error


def _keepalive_options() -> dict[int, int]:
    """Those that this platform has."""
    return {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}


async def _messages(pubsub: "redis.client.PubSub") -> AsyncIterator[str]:
    try:
        async for message in pubsub.listen():
            if message["type"] == "message":
                yield message["data"]
    except FAILURES:
        return
