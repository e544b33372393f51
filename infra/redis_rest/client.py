"""Redis of the API: commands through the Upstash REST API, subscriptions over SSE."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

from infra.contract.errors import ContractError, StoreRejected, StoreUnavailable
from infra.contract.redis import Argument, Reply, Script
from infra.redis_rest.auto_pipeline import AutoPipeline, deadline
from infra.redis_rest.sse import events
from infra.redis_rest.upstash import UpstashClient
from infra.settings import RedisRestSettings, SettingsError

MAX_REQUESTS = 16
"""Concurrent requests; subscriptions do not count."""


class RedisRest:
    """Implements the ports `Redis` and `LogFeed`. Each call has the deadline `settings.timeout_s`.

    `starts_cold`: a function, of which the start counts. A server pays for a slower import once, and less per request.
    The constructor raises SettingsError.
    """

    def __init__(self, settings: RedisRestSettings, *, starts_cold: bool = False) -> None:
        self._timeout_s = settings.timeout_s
        try:
            self._upstash = UpstashClient(settings.url, settings.token, starts_cold=starts_cold)
        except OSError as exc:
            named = " or ".join(name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name))
            raise SettingsError(f"no certificates can be read from {named or 'the package certifi'}: {exc}") from None
        self._subscribe_url = f"{settings.url}/subscribe"
        self._subscribe_headers = {"Authorization": f"Bearer {settings.token}", "Accept": "text/event-stream"}
        self._request_slots = asyncio.Semaphore(MAX_REQUESTS)
        self._commands = AutoPipeline(self._request_slots, self._send)

    async def command(self, *args: Argument) -> Reply:
        """Run one command, perhaps in one request with others."""
        async with deadline(self._timeout_s):
            return await self._commands.read(args)

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run commands in one request of their own."""
        async with deadline(self._timeout_s), self._request_slots:
            replies = await self._send(commands)
        for reply in replies:
            if isinstance(reply, ContractError):
                raise reply
        return cast("list[Reply]", replies)

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Run a script by its digest, or by its text if the server does not know the digest."""
        tail = (len(keys), *keys, *args)
        async with deadline(self._timeout_s):
            try:
                return await self._commands.write(("EVALSHA", script.sha1, *tail))
            except StoreRejected as exc:
                if "NOSCRIPT" not in str(exc):
                    raise
                return await self._commands.write(("EVAL", script.text, *tail))

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        """Enter once the subscription is confirmed; iterate over messages until the upstream ends."""
        async with AsyncExitStack() as stack:
            # The deadline covers the connection and the confirmation, not the messages after them.
            async with deadline(self._timeout_s):
                stream = self._upstash.transport.stream(
                    f"{self._subscribe_url}/{channel}", headers=self._subscribe_headers
                )
                subscription = events(await stack.enter_async_context(stream))
                await _confirmation(subscription)
            yield _messages(subscription, f"message,{channel},")

    async def close(self) -> None:
        """Close all connections."""
        await self._commands.close()
        await self._upstash.transport.aclose()

    async def _send(self, commands: Sequence[Sequence[Argument]]) -> "Sequence[Reply | ContractError]":
        # Without a deadline of its own: a request ends when the last caller has left, and each has a deadline.
        if len(commands) == 1:
            return [await self._upstash.execute(commands[0])]
        return await self._upstash.pipeline(commands)


async def _confirmation(subscription: AsyncIterator[str]) -> None:
    """Wait for the confirmation of a subscription. Raises StoreUnavailable."""
    async for event in subscription:
        if event.startswith("subscribe,"):
            return
    raise StoreUnavailable("the subscription ended before it was confirmed")


async def _messages(subscription: AsyncIterator[str], prefix: str) -> AsyncIterator[str]:
    """Yield the payloads of the channel's messages; end with the upstream, whether it was closed or broken."""
    try:
        async for event in subscription:
            if event.startswith(prefix):
                yield event.removeprefix(prefix)
    except StoreUnavailable:
        return
