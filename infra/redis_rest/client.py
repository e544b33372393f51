"""Redis of the API: commands through the Upstash REST API, subscriptions over SSE."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError, aconnect_sse

from infra.contract.errors import StoreRejected, StoreUnavailable
from infra.contract.redis import Argument, Reply, Script
from infra.redis_rest.auto_pipeline import AutoPipeline, deadline
from infra.redis_rest.upstash import UpstashClient
from infra.settings import RedisRestSettings

MAX_REQUESTS = 16
"""Concurrent requests. The limit is kept here rather than by the HTTP client, which scans all waiting requests in each
turn of the event loop: with a thousand of them, the scans would cost more than the replies."""
SUBSCRIPTION_TIMEOUT_S = 60.0
"""A subscription that brings neither a message nor a heartbeat for this time is considered dead."""


class RedisRest:
    """Implements the ports `Redis` and `LogFeed`. Each call has the deadline `settings.timeout_s`."""

    def __init__(self, settings: RedisRestSettings) -> None:
        self._timeout_s = settings.timeout_s
        self._upstash = UpstashClient(settings.url, settings.token)
        self._request_slots = asyncio.Semaphore(MAX_REQUESTS)
        self._commands = AutoPipeline(self._request_slots, self._pipeline, settings.timeout_s)
        # A subscription occupies its connection until it ends, so the number of connections has no limit here.
        self._http = httpx.AsyncClient(
            base_url=settings.url,
            headers={"Authorization": f"Bearer {settings.token}", "Accept": "text/event-stream"},
            timeout=httpx.Timeout(settings.timeout_s, read=SUBSCRIPTION_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def command(self, *args: Argument) -> Reply:
        """Run one command. If all requests are in use, the next free one carries it together with others."""
        return await self._commands.submit(args)

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run commands in one request."""
        async with self._request_slot():
            return await self._pipeline(commands)

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Run a script by its digest, or by its text if the server does not know the digest."""
        # A script has its own request, because the SDK does not show the replies of the others if one command of a
        # request is rejected.
        tail = [len(keys), *keys, *args]
        async with self._request_slot():
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
            async with AsyncExitStack() as stack:
                # The deadline covers the connection and the confirmation, not the messages after them.
                async with deadline(self._timeout_s):
                    connecting = aconnect_sse(self._http, "POST", f"/subscribe/{channel}")
                    events = await _confirmed(await stack.enter_async_context(connecting))
                yield _messages(events, f"message,{channel},")
        except (httpx.HTTPError, SSEError) as exc:
            raise StoreUnavailable(f"the subscription failed: {type(exc).__name__}") from exc

    async def close(self) -> None:
        """Close all connections."""
        await self._commands.close()
        await self._upstash.close()
        await self._http.aclose()

    @asynccontextmanager
    async def _request_slot(self) -> AsyncIterator[None]:
        """Hold one of MAX_REQUESTS. The deadline includes the wait for it."""
        async with deadline(self._timeout_s), self._request_slots:
            yield

    async def _execute(self, command: Sequence[Argument]) -> Reply:
        async with deadline(self._timeout_s):
            return await self._upstash.execute(command)

    async def _pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        if len(commands) == 1:
            return [await self._execute(commands[0])]
        async with deadline(self._timeout_s):
            return await self._upstash.pipeline(commands)


async def _confirmed(source: EventSource) -> AsyncIterator[ServerSentEvent]:
    """Wait for the confirmation of a subscription; return the events after it. Raises StoreUnavailable."""
    if source.response.is_error:
        raise StoreUnavailable(f"the subscription was rejected with status {source.response.status_code}")
    events = aiter(source.aiter_sse())
    async for event in events:
        if event.data.startswith("subscribe,"):
            return events
    raise StoreUnavailable("the subscription ended before it was confirmed")


async def _messages(events: AsyncIterator[ServerSentEvent], prefix: str) -> AsyncIterator[str]:
    """Yield the payloads of the channel's messages; end with the upstream, whether it was closed or broken."""
    try:
        async for event in events:
            if event.data.startswith(prefix):
                yield event.data.removeprefix(prefix)
    except (httpx.HTTPError, SSEError):
        return
