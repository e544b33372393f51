"""The edge's Redis: the Upstash REST API through `upstash-redis`, and its subscriptions over SSE."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar, cast

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError, aconnect_sse
from upstash_redis.asyncio import Redis as UpstashRedis
from upstash_redis.errors import UpstashError

from infra.contract.errors import TRANSIENT_CODES, StoreRejected, StoreUnavailable
from infra.contract.redis import Argument, Reply, Script
from infra.redis_rest.auto_pipeline import AutoPipeline, within
from infra.settings import RedisRestSettings

T = TypeVar("T")

PARALLEL = 16
"""Requests at once. The HTTP client looks through all that wait at each turn, so that a thousand would cost it more
than their answers."""
SILENCE_S = 60.0
"""A subscription that brings neither message nor heartbeat for so long is taken for dead."""


class RedisRest:
    """Implements the ports `Redis` and `LogFeed`.

    The SDK's own silent retry is off and each call has a deadline: whether a step may be repeated is for the caller
    to say. Command names go out in lower case because the SDK reshapes the replies of those that it knows in upper
    case, and the port promises RESP2 shapes.
    """

    def __init__(self, settings: RedisRestSettings) -> None:
        self._timeout_s = settings.timeout_s
        self._redis = UpstashRedis(settings.url, settings.token, rest_retries=0, allow_telemetry=False)
        # The SDK looks at the body alone; its `error` does not tell an outage from a refused command.
        self._redis._http._client.event_hooks = {"response": [_refuse_outage]}
        self._free = asyncio.Semaphore(PARALLEL)
        self._commands = AutoPipeline(self._free, self._pipeline, settings.timeout_s)
        self._http = httpx.AsyncClient(
            base_url=settings.url,
            headers={"Authorization": f"Bearer {settings.token}", "Accept": "text/event-stream"},
            timeout=httpx.Timeout(settings.timeout_s, read=SILENCE_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def command(self, *args: Argument) -> Reply:
        """Run one command, in one request with others if it has to wait for one."""
        return await self._commands.ask(args)

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run commands in one request."""
        async with self._turn():
            return await self._pipeline(commands)

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Run a script by its digest, or by its text if the server does not know it.

        By itself: of a refused request with several in it, the SDK does not tell what became of the others.
        """
        tail = [len(keys), *keys, *args]
        async with self._turn():
            try:
                return await self._execute(["EVALSHA", script.sha1, *tail])
            except StoreRejected as exc:
                if "NOSCRIPT" not in str(exc):
                    raise
                return await self._execute(["EVAL", script.text, *tail])

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        """Enter once the subscription is confirmed; iterate over messages until the upstream ends."""
        try:
            async with AsyncExitStack() as open_until_then:
                async with within(self._timeout_s):
                    connecting = aconnect_sse(self._http, "POST", f"/subscribe/{channel}")
                    lines = await _confirmed(await open_until_then.enter_async_context(connecting))
                yield _messages(lines, f"message,{channel},")
        except (httpx.HTTPError, SSEError) as exc:
            raise StoreUnavailable(f"the subscription failed: {type(exc).__name__}") from exc

    async def close(self) -> None:
        """Close all connections."""
        await self._commands.close()
        await self._redis.close()
        await self._http.aclose()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of the requests that may be under way at once, within the deadline."""
        async with within(self._timeout_s), self._free:
            yield

    async def _execute(self, command: Sequence[Argument]) -> Reply:
        return await self._call(cast("Awaitable[Reply]", self._redis.execute(_lower(command))))

    async def _pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        if len(commands) == 1:
            return [await self._execute(commands[0])]
        pipeline = self._redis.pipeline()
        for command in commands:
            pipeline.execute(_lower(command))
        return await self._call(cast("Awaitable[list[Reply]]", pipeline.exec()))

    async def _call(self, answer: Awaitable[T]) -> T:
        """Await an answer within the deadline; map what the SDK raises to the domain's errors."""
        try:
            async with within(self._timeout_s):
                return await answer
        except UpstashError as exc:
            if (code := str(exc).partition(" ")[0]) in TRANSIENT_CODES:
                raise StoreUnavailable(f"Redis cannot do that now: {code}") from exc
            raise StoreRejected(str(exc)) from exc
        except AttributeError as exc:
            # The SDK reads a pipeline's answer as a list, so an error for the whole request surfaces like this.
            raise StoreRejected("the pipeline was refused as a whole") from exc
        except (httpx.HTTPError, ValueError, KeyError) as exc:
            raise StoreUnavailable(f"no answer from Redis: {type(exc).__name__}") from exc


async def _refuse_outage(response: httpx.Response) -> None:
    if response.is_server_error:
        response.raise_for_status()


async def _confirmed(source: EventSource) -> AsyncIterator[ServerSentEvent]:
    """What comes after the confirmation of a subscription."""
    if source.response.is_error:
        raise StoreUnavailable(f"the subscription was refused with status {source.response.status_code}")
    lines = aiter(source.aiter_sse())
    async for line in lines:
        if line.data.startswith("subscribe,"):
            return lines
    raise StoreUnavailable("the subscription ended before it was confirmed")


def _lower(command: Sequence[Argument]) -> list[Argument]:
    name, *args = command
    return [str(name).lower(), *args]


async def _messages(lines: AsyncIterator[ServerSentEvent], prefix: str) -> AsyncIterator[str]:
    """The payloads of the channel's messages; ends with the upstream, however that ends."""
    try:
        async for line in lines:
            if line.data.startswith(prefix):
                yield line.data.removeprefix(prefix)
    except (httpx.HTTPError, SSEError):
        return
