"""Transport of a function: over httpx, which the SDK imports in any case, so that it costs a cold start nothing."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from infra.redis_rest.transport import Response, RestTransport


class HttpxTransport(RestTransport):
    """Implements the transport over the SDK's own client, because each one needs 30 ms to load certificates."""

    errors = (httpx.HTTPError, httpx.InvalidURL)

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @asynccontextmanager
    async def exchange(
        self, url: str, headers: Mapping[str, str], body: bytes, silence_s: float | None = None
    ) -> AsyncIterator[Response]:
        """Send a POST."""
        timeout = httpx.Timeout(None, read=silence_s)
        async with self._client.stream("POST", url, headers=headers, content=body, timeout=timeout) as response:
            yield Response(response.status_code, response.headers, response.aiter_bytes())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()
