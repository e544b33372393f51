"""Clients that outlive what their connections belong to: a forked process, an event loop that has ended, `close`."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from swissbrain import Client, ClientError
from tests.client.both_clients import Connect
from tests.client.scripted_server import TOKEN, run

FORKS = """
import os, sys
from swissbrain import Client

client = Client(*sys.argv[1:])
client.get_run("first")  # its connection is kept
name = "parent" if os.fork() else "child"
wrong = sum(client.get_run(name).run_id != name for _ in range(50))
if name == "child":
    os._exit(wrong)
sys.exit(wrong or os.waitstatus_to_exitcode(os.wait()[1]))
"""

LOOPS = """
import asyncio, sys, threading
from swissbrain import AsyncClient

client, found, together = AsyncClient(*sys.argv[1:]), [], threading.Barrier(2)

async def ask(name, together=None):
    for _ in range(20):
        if together:
            together.wait(30)
        found.append((await client.get_run(name)).run_id == name)

for name in "ab":
    asyncio.run(ask(name))
threads = [threading.Thread(target=lambda name=name: asyncio.run(ask(name, together))) for name in "cd"]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
asyncio.run(client.close())
sys.exit(found != [True] * 80)
"""


class Api(BaseHTTPRequestHandler):
    """API that has every run, and keeps its connections open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = json.dumps(run() | {"run_id": self.path.rpartition("/")[2]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("program", [FORKS, LOOPS])
def test_every_process_and_every_event_loop_gets_its_own_answers(url: str, program: str) -> None:
    assert subprocess.run([sys.executable, "-c", program, url, TOKEN], timeout=60, check=False).returncode == 0


def test_a_closed_client_says_so(connect: Connect) -> None:
    client: Client = connect("http://127.0.0.1:9", TOKEN)
    client.close()
    client.close()
    for use in (client.get_run, client.wait, lambda run_id: list(client.events(run_id))):
        with pytest.raises(ClientError, match="the client is closed"):
            use("run_1")
