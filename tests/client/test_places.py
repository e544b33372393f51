"""One client in several processes and event loops: none uses the connections of another."""

import asyncio
import gc
import subprocess
import sys
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from swissbrain import AsyncClient

FORKING = """
import os, sys
from swissbrain import Client

client = Client(sys.argv[1], "token")
client.whoami()
if os.fork() == 0:
    client.whoami()
    client.close()
    os._exit(0)
assert os.wait()[1] == 0
client.whoami()
"""


class CountingServer(ThreadingHTTPServer):
    """Server that keeps its connections. `ports` are those of the clients, one for each request."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        super().__init__(("127.0.0.1", 0), IdentityHandler)


class IdentityHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, CountingServer)
        self.server.ports.append(self.client_address[1])
        body = b'{"user": "ada", "scopes": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer() as running:
        running.daemon_threads = True
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def url_of(server: CountingServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_a_forked_process_has_connections_of_its_own(server: CountingServer) -> None:
    subprocess.run([sys.executable, "-c", FORKING, url_of(server)], check=True)
    parents, childs, again = server.ports
    assert childs != parents
    assert again == parents


def test_a_client_can_be_used_in_one_event_loop_after_another(server: CountingServer) -> None:
    client = AsyncClient(url_of(server), "token")

    async def twice() -> None:
        assert [(await client.whoami()).user for _ in range(2)] == ["ada", "ada"]

    async def last() -> None:
        await twice()
        await client.close()

    asyncio.run(twice())
    asyncio.run(last())
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # of the connection of the first loop, which nothing can close any more
    first, second, third, fourth = server.ports
    assert first == second != third == fourth
