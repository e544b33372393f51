"""Fixtures: a scripted web site on loopback, and the proxy of one call in front of it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from infra.address_guard import AddressGuard
from infra.egress.accepting import Acceptor
from infra.egress.call import EgressCall, EgressLimits
from infra.egress.connection import serve_connection
from tests.support.servers import web_site_fixture
from tests.support.web_site import NAME, Names, Site

OTHER = "other.test"
MB = 1024 * 1024


web = web_site_fixture("package")


@pytest.fixture
def site(web: Site) -> Site:
    web.pages.clear()
    web.requests.clear()
    return web


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes on a new connection, end it, and return everything that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        writer.write_eof()
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


@dataclass
class Proxy:
    """Proxy of one call at `port`."""

    call: EgressCall
    port: int
    names: Names

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the proxy."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def answer(self, request: bytes) -> bytes:
        """Send bytes on a new connection, end it, and return everything that comes back."""
        return await exchange(self.port, request)


@dataclass
class ProxyOptions:
    """Hosts and limits of a proxy."""

    site: Site
    allowed: Sequence[str] = ()
    names: Names = field(default_factory=Names)
    private: Sequence[tuple[str, int]] = ()
    limits: EgressLimits = field(default_factory=lambda: EgressLimits(64 * MB))


@asynccontextmanager
async def proxy_of(options: ProxyOptions) -> AsyncIterator[Proxy]:
    """Serve a call; by default it may reach the site under NAME alone."""
    port = options.site.port
    guard = AddressGuard([(NAME, port), (OTHER, port), *options.private], options.names)
    call = EgressCall("run-1", "step-0", options.allowed or [f"{NAME}:{port}"], guard, options.limits)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_connection(reader, writer, lambda _: call, call.limits.head_s)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = Acceptor(listener, handle, 0)
        accepting = asyncio.ensure_future(acceptor.accept())
        try:
            yield Proxy(call, listener.getsockname()[1], options.names)
        finally:
            accepting.cancel()
            await asyncio.wait({accepting})
            await acceptor.close()


@pytest.fixture
async def proxy(site: Site) -> AsyncIterator[Proxy]:
    async with proxy_of(ProxyOptions(site)) as made:
        yield made


@asynccontextmanager
async def raw_server(end: bytes, reply: bytes) -> AsyncIterator[tuple[int, bytearray]]:
    """Read a connection until `end` or its end, then send `reply`; yield the port and the bytes that were read."""
    seen = bytearray()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while not seen.endswith(end) and (data := await reader.read(65_536)):
                seen.extend(data)
            writer.write(reply)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen
