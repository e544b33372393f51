"""Egress proxy of a cluster, for programs in pods."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from infra.address_guard import AddressGuard
from infra.egress.server import EgressServer
from infra.egress.settings import EgressSettings
from tests.support.web_site import Names

EGRESS_KEY = "k" * 32


@asynccontextmanager
async def egress_proxy(host: str, port: int) -> AsyncIterator[int]:
    """Serve the proxy, which may reach a host on loopback; yield its port."""
    stopped = asyncio.Event()
    server = EgressServer(EgressSettings(EGRESS_KEY), 100, partial(AddressGuard, [(host, port)], Names()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.ensure_future(server.serve(listener, stopped))
        yield listener.getsockname()[1]
        stopped.set()
        await serving
