"""Proxy in front of a real S3 server that injects faults: errors, resets, truncated, slow and missing responses."""

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit

from infra.settings import S3Settings

CHUNK_BYTES = 16 * 1024
PAUSE_S = 0.05


@dataclass
class Exchange:
    """One request on one connection, which is not reused."""

    method: str
    path: str
    head: bytes
    body: bytes
    client: socket.socket
    server: tuple[str, int]
    ending: threading.Event

    def forward(self) -> Iterator[bytes]:
        """Send the request to the real server; yield the response in pieces."""
        with socket.create_connection(self.server) as server:
            server.sendall(self.head + self.body)
            while piece := server.recv(CHUNK_BYTES):
                yield piece

    def reset(self) -> None:
        """Reset the connection, so that the client sees an error instead of an end."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()


Fault = Callable[[Exchange], None]


def passed(exchange: Exchange) -> None:
    """Forward request and response without a fault."""
    for piece in exchange.forward():
        exchange.client.sendall(piece)


def refused(status: HTTPStatus, code: str) -> Fault:
    """Return a fault: an error response of S3, without forwarding the request."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>not now</Message></Error>".encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    return lambda exchange: exchange.client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def cut(exchange: Exchange) -> None:
    """Reset the connection without forwarding the request."""
    exchange.reset()


def unanswered(exchange: Exchange) -> None:
    """Forward the request and reset the connection before the response."""
    for _ in exchange.forward():
        pass
    exchange.reset()


def hanging(exchange: Exchange) -> None:
    """Neither forward nor answer the request, until the client closes the connection."""
    exchange.client.settimeout(0.05)
    while not exchange.ending.is_set():
        with suppress(TimeoutError):
            if not exchange.client.recv(1):
                return


def truncated(after: bytes, more: int = 0) -> Fault:
    """Return a fault: close the connection normally, `more` bytes behind the first `after` in the response."""

    def truncate(exchange: Exchange) -> None:
        response = b"".join(exchange.forward())
        exchange.client.sendall(response[: response.index(after) + len(after) + more])

    return truncate


def malformed(body: bytes) -> Fault:
    """Return a fault: a successful response with this body, without forwarding the request."""
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return lambda exchange: exchange.client.sendall(head + body)


def trickling(after: bytes = b"") -> Fault:
    """Return a fault: send the response without delay to the first `after`, then byte by byte, never its last byte."""

    def trickle(exchange: Exchange) -> None:
        response = b"".join(exchange.forward())
        begun = response.index(after) + len(after)
        exchange.client.sendall(response[:begun])
        for position in range(begun, len(response) - 1):
            if exchange.ending.wait(PAUSE_S):
                return
            exchange.client.sendall(response[position : position + 1])
        hanging(exchange)

    return trickle


def crawling(seconds: float) -> Fault:
    """Return a fault: a complete response that takes `seconds`."""

    def crawl(exchange: Exchange) -> None:
        pieces = b"".join(exchange.forward())
        size = len(pieces) // 20 + 1
        for start in range(0, len(pieces), size):
            exchange.client.sendall(pieces[start : start + size])
            time.sleep(seconds / 20)

    return crawl


@dataclass
class FaultyS3:
    """State of the proxy. `settings` lead through it; `seen` lists method and path of the requests.

    `always` is the fault of requests for which `then` has set none. While `slow_uploads` is True, request bodies are
    read slowly, a third of a megabyte per second. `open` counts the open connections, `opened` all connections so far.
    Setting `ending` ends faults that wait.
    """

    settings: S3Settings
    always: Fault = passed
    slow_uploads: bool = False
    open: int = 0
    opened: int = 0
    ending: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[str, str]] = field(default_factory=list)
    _next: dict[str, deque[Fault]] = field(default_factory=dict)

    def then(self, method: str, *faults: Fault) -> None:
        """Set the faults of the next requests with the method, one for each request."""
        self._next.setdefault(method, deque()).extend(faults)

    def heal(self) -> None:
        """Remove all faults."""
        self._next.clear()
        self.always, self.slow_uploads = passed, False

    def next_fault(self, method: str) -> Fault:
        """Return the fault of the next request with the method."""
        waiting = self._next.get(method)
        return waiting.popleft() if waiting else self.always


@contextmanager
def faulty_s3(behind: S3Settings) -> Iterator[FaultyS3]:
    """Run a proxy in front of the server."""
    real = urlsplit(behind.endpoint_url or "")
    lock = threading.Lock()

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the client closed the connection
                exchange = _read(self, (real.hostname or "", real.port or 0), made)
                with lock:
                    made.seen.append((exchange.method, exchange.path))
                    fault = made.next_fault(exchange.method)
                fault(exchange)

        def setup(self) -> None:
            super().setup()
            with lock:
                made.open += 1
                made.opened += 1

        def finish(self) -> None:
            self.rfile.close()
            with lock:
                made.open -= 1

    class Server(ThreadingTCPServer):
        daemon_threads = False
        request_queue_size = 100

    with Server(("127.0.0.1", 0), Handler) as server:
        made = FaultyS3(replace(behind, endpoint_url=f"http://127.0.0.1:{server.server_address[1]}"))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            made.ending.set()
            server.shutdown()
            thread.join()


def _read(handler: StreamRequestHandler, server: tuple[str, int], made: FaultyS3) -> Exchange:
    """Read a whole request."""
    line = handler.rfile.readline()
    if not line:
        raise ConnectionError
    headers = _headers(handler)
    if "expect" in headers:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body, size = bytearray(), int(headers.get("content-length", (b"", b"0"))[1])
    while len(body) < size:
        if made.slow_uploads and made.ending.wait(PAUSE_S):
            raise ConnectionError
        piece = handler.rfile.read(min(CHUNK_BYTES, size - len(body)))
        if not piece:
            raise ConnectionError
        body += piece
    # Signed headers must be forwarded unchanged.
    forwarded = [raw for name, (raw, _) in headers.items() if name not in {"expect", "connection"}]
    head = b"".join([line, *forwarded, b"Connection: close\r\n\r\n"])
    method, path, _ = line.decode().split()
    return Exchange(method, path, head, bytes(body), handler.request, server, made.ending)


def _headers(handler: StreamRequestHandler) -> Mapping[str, tuple[bytes, bytes]]:
    """Return raw line and value of each header."""
    headers = {}
    while (raw := handler.rfile.readline()).strip():
        name, _, value = raw.partition(b":")
        headers[name.decode().lower()] = (raw, value.strip())
    return headers
