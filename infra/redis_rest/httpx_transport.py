"""Transport of a function: over httpx, which the SDK imports in any case, so that it costs a cold start nothing."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from infra.redis_rest.transport import RestResponse, RestTransport


class HttpxTransport(RestTransport):
    """Implements the transport over the SDK's own client, because each one needs 30 ms to load certificates."""

    errors = (httpx.HTTPError, httpx.InvalidURL)

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @asynccontextmanager
    async def exchange(
        self, url: str, headers: Mapping[str, str], body: bytes, silence_s: float | None = None
    ) -> AsyncIterator[RestResponse]:
        """Send a POST."""
        timeout = httpx.Timeout(None, read=silence_s)
        try:
            async with self._client.stream("POST", url, headers=headers, content=body, timeout=timeout) as response:
                yield RestResponse(response.status_code, response.headers, response.aiter_bytes())
        finally:
            await self._close_spoiled(url)

    async def _close_spoiled(self, url: str) -> None:
        """Close idle connections on which more than the answer came: it would be the answer to the next request."""
        # httpx itself only discards a connection on which data arrives later.
        pool: Any = getattr(self._client._transport_for_url(httpx.URL(url)), "_pool", None)
        for connection in list(pool.connections) if pool is not None else []:
            if connection.is_idle() and _unread(connection):
                await connection.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def _unread(connection: Any) -> bytes:
    """Return what a connection of httpcore has received beyond its last answer."""
    while (inner := getattr(connection, "_connection", None)) is not None:  # one layer for each kind of proxy
        connection = inner
    state = getattr(connection, "_h11_state", None)
    return state.trailing_data[0] if state is not None else b""
