"""A server with a recording application, and raw connections to it."""

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from infra.asgi import wait_for_disconnect
from infra.asgi_server import StreamServer, listen, server_config
from infra.http_limits import HttpLimits
from tests.support.waiting import wait_until

LIMITS = HttpLimits(connections=1000)
PATIENCE_S = 30.0
HOST = b"Host: x\r\n"


@dataclass
class Seen:
    """Request as the application saw it."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    body: bytes


@dataclass
class Recorder:
    """ASGI application that records each request whose body is complete, and answers with the body.

    `/early` is answered before its body, `/wait` when `release` is set, `/stream` with two parts of unknown length,
    `/huge` with more than the buffers of a connection hold, `/listen` never.
    """

    requests: list[Seen] = field(default_factory=list)
    disconnects: list[str] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self._answer(scope, receive, send)
        finally:
            self.running -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode()
        if path == "/early":
            await _respond(send, b"early")
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects.append(path)
                return
            body += message["body"]
            more = message["more_body"]
        self.requests.append(Seen(scope["method"], path, list(scope["headers"]), body))
        if path == "/listen":
            await wait_for_disconnect(receive)
            self.disconnects.append(path)
            return
        if path == "/wait":
            while not self.release.is_set():
                await asyncio.sleep(0.01)
        if path == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one\n", "more_body": True})
            await send({"type": "http.response.body", "body": b"two\n", "more_body": False})
            return
        await _respond(send, bytes(40_000_000) if path == "/huge" else body or path.encode())


async def _respond(send: Send, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class SteppedServer(StreamServer):
    """Server whose clock is `ahead_s` seconds ahead where deadlines are applied, which is ten times a second.

    A test moves the clock, so that no deadline passes only because the host is busy.
    """

    ahead_s = 0.0
    sweeps = 0

    async def on_tick(self, counter: int) -> bool:
        """Apply the deadlines of all connections; return True if the server has to stop."""
        self.server_state.sweep(asyncio.get_running_loop().time() + self.ahead_s)
        self.sweeps += 1
        return await uvicorn.Server.on_tick(self, counter)


@dataclass
class Running:
    """A running server. Its connections are closed with it, also after a test that failed."""

    port: int
    app: Recorder
    server: SteppedServer
    clients: list["Client"] = field(default_factory=list)

    def connect(self, receive_buffer: int | None = None) -> "Client":
        """Return a new connection. `receive_buffer` is the size in bytes of the client's buffer in the kernel."""
        sock = socket.socket()
        client = Client(sock)
        self.clients.append(client)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE_S)
        sock.connect(("127.0.0.1", self.port))
        return client

    def exchange(self, *packets: bytes) -> bytes:
        """Send the packets on a new connection, half-close it after the last answer, and return all answers."""
        with self.connect() as client:
            for packet in packets:
                client.send(packet)
            return client.read_to_end()

    def step(self, seconds: float) -> None:
        """Let the time pass for the server, once it has taken what was sent before, and wait until it has noticed."""
        self._sweep(4)  # the server reads from every connection between two sweeps, and accepts it one earlier
        self.server.ahead_s += seconds
        self._sweep(2)

    def _sweep(self, times: int) -> None:
        end = self.server.sweeps + times
        wait_until(lambda: self.server.sweeps >= end, "the deadlines are applied")

    @property
    def connections(self) -> int:
        return len(self.server.server_state.guarded)


class Client:
    """Raw connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send the data, as far as the server still takes it."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)

    def read_to_end(self) -> bytes:
        """Return all data until the server closes the connection."""
        received = bytearray()
        try:
            while part := self.sock.recv(1 << 20):
                received += part
        except ConnectionResetError:
            received += b"<reset>"
        return bytes(received)

    def read_until(self, text: bytes) -> bytes:
        """Return all data until it contains `text`."""
        received = b""
        while text not in received:
            part = self.sock.recv(1 << 16)
            assert part, received
            received += part
        return received


@contextmanager
def serve(limits: HttpLimits = LIMITS, **changes: Any) -> Iterator[Running]:
    """Run a server in a thread. `changes` are changed limits."""
    limits = replace(limits, **changes)
    recorder = Recorder()
    app = Starlette(routes=[Mount("/", recorder)])
    config = server_config(app, "127.0.0.1", 0, limits, timeout_graceful_shutdown=1)
    server = SteppedServer(config, app, lambda _app: None, limits)
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    wait_until(lambda: server.started, "the server listens")
    running = Running(listener.getsockname()[1], recorder, server)
    try:
        yield running
    finally:
        for client in running.clients:
            client.sock.close()
        recorder.release.set()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


def statuses(answers: bytes) -> list[int]:
    """Return the statuses of all answers."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def post(path: str, body: bytes, *headers: bytes, close: bool = True) -> bytes:
    """Return a request with Content-Length."""
    lines = [*headers, *([b"Connection: close"] if close else []), b"Content-Length: %d" % len(body)]
    return b"POST %s HTTP/1.1\r\n%s%s\r\n\r\n%s" % (path.encode(), HOST, b"\r\n".join(lines), body)


def get(path: str, *headers: bytes, close: bool = True) -> bytes:
    """Return a request without a body."""
    lines = [*headers, *([b"Connection: close"] if close else [])]
    return b"GET %s HTTP/1.1\r\n%s\r\n" % (path.encode(), HOST + b"".join(line + b"\r\n" for line in lines))
