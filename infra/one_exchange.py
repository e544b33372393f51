"""HTTP transport for one exchange with a server that is not trusted.

The library bounds each head of an answer, but not the number of interim ones (103 Early Hints) before the real one, and
it splits what it has read without a pause: a server that sends either without end, or chunks of one byte, would keep
the event loop from all others.
"""

import ssl
import typing
from collections.abc import Iterable

import httpcore
import httpx

MAX_BYTES_BEFORE_ANSWER = 128 * 1024
"""Bytes that are read before the head of the answer is complete. The library refuses a single head of 100 KiB."""
MAX_READ_BYTES = 8 * 1024
"""Bytes that are read at once: others get their turn after each read."""


class OneExchange(httpx.AsyncHTTPTransport):
    """Transport with one connection, without proxies, that raises RemoteProtocolError before an endless head."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls, trust_env=False)
        self._head = _HeadBytes()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls, max_connections=1, max_keepalive_connections=0, network_backend=_CountedNetwork(self._head)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response as soon as its head is there."""
        self._head.left = MAX_BYTES_BEFORE_ANSWER
        response = await super().handle_async_request(request)
        self._head.left = None
        return response


class _HeadBytes:
    """Bytes that may still be read before the answer; None once its head is there."""

    left: int | None = None


class _CountedNetwork(httpcore.AsyncNetworkBackend):
    def __init__(self, head: _HeadBytes) -> None:
        self._network = httpcore.AnyIOBackend()
        self._head = head

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[typing.Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _CountedStream(
            await self._network.connect_tcp(host, port, timeout, local_address, socket_options), self._head
        )


class _CountedStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream, head: _HeadBytes) -> None:
        self._stream = stream
        self._head = head

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(min(max_bytes, MAX_READ_BYTES), timeout)
        if self._head.left is not None:
            self._head.left -= len(data)
            if self._head.left < 0:
                raise httpcore.RemoteProtocolError(f"more than {MAX_BYTES_BEFORE_ANSWER} bytes before the answer")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _CountedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._head)

    def get_extra_info(self, info: str) -> typing.Any:
        return self._stream.get_extra_info(info)
