"""Transport of a server: over aiohttp, with which a request needs a fifth of the processor time it needs with httpx."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx

from infra.proxies import proxy_for
from infra.redis_rest.transport import MAX_IDLE_S, RestResponse, RestTransport


class _Connector(aiohttp.TCPConnector):
    """Connector that does not use a connection on which data came while no request was under way."""

    # aiohttp keeps such data, and would take it for the answer to the next request. It may be the second copy of an
    # answer, or the reason for which a proxy is about to close the connection.

    async def _get(self, *args: Any, **kwargs: Any) -> Any:
        while (idle := await super()._get(*args, **kwargs)) is not None:
            if idle.protocol is not None and not idle.protocol.should_close:
                break
            idle.close()
        return idle


class AiohttpTransport(RestTransport):
    """Implements the transport over aiohttp. Connections in use are not limited."""

    errors = (aiohttp.ClientError,)

    def __init__(self, url: str) -> None:
        self._ssl = httpx.create_ssl_context() if url.startswith("https:") else True
        _, self._proxy = proxy_for(url)
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def exchange(
        self, url: str, headers: Mapping[str, str], body: bytes, silence_s: float | None = None
    ) -> AsyncIterator[RestResponse]:
        """Send a POST."""
        async with self._open().post(
            url,
            headers=headers,
            data=body,
            allow_redirects=False,
            ssl=self._ssl,
            proxy=self._proxy,
            timeout=aiohttp.ClientTimeout(sock_read=silence_s),
        ) as response:
            yield RestResponse(response.status, response.headers, response.content.iter_any())

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        """Return the session, which belongs to the running event loop."""
        if self._session is None:
            connector = _Connector(limit=0, keepalive_timeout=MAX_IDLE_S)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session
