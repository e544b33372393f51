"""Network of pods: its end."""

import asyncio
import socket
from contextlib import suppress

import pytest

from tests.support.kube.network import PodNetwork

PORT = 8700


@pytest.mark.parametrize("turns", range(8))
async def test_no_connection_outlives_the_network_of_its_pod(turns: int) -> None:
    """However far it has got: it would hang, or be found open by a later test."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        network = PodNetwork()
        await network.open(PORT, silent.getsockname()[1])
        with socket.create_connection((network.address, PORT)) as client:
            client.setblocking(False)
            for _ in range(turns):
                await asyncio.sleep(0)
            network.close()
            with suppress(ConnectionError):
                assert await asyncio.wait_for(loop.sock_recv(client, 1), 30) == b""
