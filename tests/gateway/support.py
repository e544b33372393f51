"""A Valkey and a gateway for the tests, and a client of event streams."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any, Self

import httpx
import redis

from infra.gateway.app import Gateway
from infra.gateway.server import create_server
from infra.gateway.settings import GatewaySettings
from tests.support.redis import free_port, valkey_binary
from tests.support.waiting import wait_until

TOKEN = "standard-token"
READONLY_TOKEN = "readonly-token"


class Valkey:
    """A Valkey without persistence that can be killed, and started again on the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> Self:
        address = ["--bind", "127.0.0.1", "--port", str(self.port)]
        no_persistence = ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            [str(valkey_binary()), *address, *no_persistence, *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, "Valkey answers")
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"PING\r\n")
                return bool(sock.recv(64))
        except OSError:
            return False

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(port=self.port, **options)

    def connections(self) -> list[str]:
        """Return the command that each connection of a gateway ran last."""
        with self.client() as client:
            return [row["cmd"] for row in client.client_list() if row["name"] == "swissbrain-gateway"]

    def subscriptions(self) -> list[int]:
        """Return the number of channels of each connection of a gateway that has subscribed to any."""
        with self.client() as client:
            rows = [row for row in client.client_list() if row["name"] == "swissbrain-gateway"]
        return [int(row["sub"]) for row in rows if row["sub"] != "0"]


@dataclass
class Served:
    """A running gateway."""

    url: str
    port: int
    gateway: Gateway
    stop: Callable[[], None]

    def client(self, token: str = TOKEN, **headers: str) -> httpx.Client:
        """Return an HTTP client of this gateway."""
        headers["Authorization"] = f"Bearer {token}"
        # The gateway serves plain HTTP. Loading the system's certificates for hundreds of clients would be slow.
        return httpx.Client(base_url=self.url, timeout=20, headers=headers, trust_env=False, verify=False)


@contextmanager
def serve(redis_url: str, **options: Any) -> Iterator[Served]:
    """Run a gateway in a thread. `options` are further settings."""
    settings = GatewaySettings(redis_url=redis_url, token=TOKEN, readonly_token=READONLY_TOKEN, **options)
    server = create_server(settings)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()
        wait_until(lambda: server.started, "the gateway serves")

        def stop() -> None:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the gateway did not stop"

        try:
            yield Served(f"http://127.0.0.1:{port}", port, server.app.state.gateway, stop)
        finally:
            stop()


class Subscriber:
    """Reads an event stream in a thread. `events` are the payloads in order.

    `clean_end` is None while the stream is open, then False if its connection broke.
    """

    def __init__(self, served: Served, path: str, method: str = "POST", token: str = TOKEN) -> None:
        self._client = served.client(token, Accept="text/event-stream")
        self._lines: Queue[str | None] = Queue()
        self.events: list[str] = []
        self.comments: list[str] = []
        self.status = 0
        self.clean_end: bool | None = None
        self._socket: Any = None
        self._thread = threading.Thread(target=self._read, args=(method, path))
        self._thread.start()

    def _read(self, method: str, path: str) -> None:
        try:
            with self._client.stream(method, path) as response:
                self._socket = response.extensions["network_stream"].get_extra_info("socket")
                self.status = response.status_code
                data: list[str] = []
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        data.append(line.removeprefix("data: "))
                    elif line.startswith(":"):
                        self.comments.append(line)
                    elif not line and data:
                        self.events.append("\n".join(data))
                        data = []
                self.clean_end = True
        except (httpx.HTTPError, OSError):
            self.clean_end = False

    @property
    def ended(self) -> bool:
        return self.clean_end is not None

    def expect(self, events: Sequence[str]) -> None:
        """Wait until the stream has brought exactly these events."""
        wait_until(lambda: len(self.events) >= len(events) or self.ended, f"{len(events)} events")
        assert self.events == list(events)

    def close(self) -> None:
        if self._socket is not None and not self.ended:
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
