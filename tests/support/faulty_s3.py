"""A real S3 server behind something that answers in its place, cuts, tears, hangs or crawls when it is told to."""

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
    """One request, on a connection of its own."""

    method: str
    path: str
    head: bytes
    body: bytes
    client: socket.socket
    server: tuple[str, int]
    ending: threading.Event

    def forward(self) -> Iterator[bytes]:
        """Let the real server do it; its answer in pieces."""
        with socket.create_connection(self.server) as server:
            server.sendall(self.head + self.body)
            while piece := server.recv(CHUNK_BYTES):
                yield piece

    def reset(self) -> None:
        """End the connection so that the client sees an error."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()


Fault = Callable[[Exchange], None]


def passed(exchange: Exchange) -> None:
    """No fault."""
    for piece in exchange.forward():
        exchange.client.sendall(piece)


def refused(status: HTTPStatus, code: str) -> Fault:
    """An answer as S3 gives it, without anything having been done."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>not now</Message></Error>".encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    return lambda exchange: exchange.client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def cut(exchange: Exchange) -> None:
    """Not done, and the connection is reset."""
    exchange.reset()


def unanswered(exchange: Exchange) -> None:
    """Done, and the connection is reset before the answer."""
    for _ in exchange.forward():
        pass
    exchange.reset()


def hanging(exchange: Exchange) -> None:
    """Not done, and never answered."""
    exchange.client.settimeout(0.05)
    while not exchange.ending.is_set():
        with suppress(TimeoutError):
            if not exchange.client.recv(1):
                return


def torn(after: bytes, more: int = 0) -> Fault:
    """Done, and the connection is closed as if all had been sent: so many bytes after the first `after`."""

    def tear(exchange: Exchange) -> None:
        answer = b"".join(exchange.forward())
        exchange.client.sendall(answer[: answer.index(after) + len(after) + more])

    return tear


def garbled(body: bytes) -> Fault:
    """Not done, and answered with this as if it had been."""
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return lambda exchange: exchange.client.sendall(head + body)


def trickling(after: bytes = b"") -> Fault:
    """Done, with an answer that comes at once up to the first `after`, then byte by byte and never to its end."""

    def trickle(exchange: Exchange) -> None:
        answer = b"".join(exchange.forward())
        begun = answer.index(after) + len(after)
        exchange.client.sendall(answer[:begun])
        for place in range(begun, len(answer) - 1):
            if exchange.ending.wait(PAUSE_S):
                return
            exchange.client.sendall(answer[place : place + 1])
        hanging(exchange)

    return trickle


def crawling(seconds: float) -> Fault:
    """Done, with an answer that takes so long, piece by piece."""

    def crawl(exchange: Exchange) -> None:
        pieces = b"".join(exchange.forward())
        size = len(pieces) // 20 + 1
        for start in range(0, len(pieces), size):
            exchange.client.sendall(pieces[start : start + size])
            time.sleep(seconds / 20)

    return crawl


@dataclass
class FaultyS3:
    """`settings` are those of the way past the faults. `seen` is what was asked, by method and path.

    While `sips` holds, bodies of requests are taken in small pieces, a third of a megabyte a second. `open` is how many
    connections there are, `opened` how many there have been. `ending` lets those end that wait.
    """

    settings: S3Settings
    always: Fault = passed
    sips: bool = False
    open: int = 0
    opened: int = 0
    ending: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[str, str]] = field(default_factory=list)
    _next: dict[str, deque[Fault]] = field(default_factory=dict)

    def then(self, method: str, *faults: Fault) -> None:
        """The next requests of that method meet these, one each."""
        self._next.setdefault(method, deque()).extend(faults)

    def heal(self) -> None:
        """No faults from now on."""
        self._next.clear()
        self.always, self.sips = passed, False

    def met(self, method: str) -> Fault:
        """What the next request of that method meets."""
        waiting = self._next.get(method)
        return waiting.popleft() if waiting else self.always


@contextmanager
def faulty_s3(behind: S3Settings) -> Iterator[FaultyS3]:
    """Something before that server, gone in the end."""
    real = urlsplit(behind.endpoint_url or "")
    lock = threading.Lock()

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # clients leave
                exchange = _read(self, (real.hostname or "", real.port or 0), made)
                with lock:
                    made.seen.append((exchange.method, exchange.path))
                    fault = made.met(exchange.method)
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
    """A whole request. What it is signed over goes on as it came; the connection to the server is for it alone."""
    line = handler.rfile.readline()
    if not line:
        raise ConnectionError
    headers = _headers(handler)
    if "expect" in headers:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body, size = bytearray(), int(headers.get("content-length", (b"", b"0"))[1])
    while len(body) < size:
        if made.sips and made.ending.wait(PAUSE_S):
            raise ConnectionError
        piece = handler.rfile.read(min(CHUNK_BYTES, size - len(body)))
        if not piece:
            raise ConnectionError
        body += piece
    kept = [raw for name, (raw, _) in headers.items() if name not in {"expect", "connection"}]
    head = b"".join([line, *kept, b"Connection: close\r\n\r\n"])
    method, path, _ = line.decode().split()
    return Exchange(method, path, head, bytes(body), handler.request, server, made.ending)


def _headers(handler: StreamRequestHandler) -> Mapping[str, tuple[bytes, bytes]]:
    """Each header as it came, and its value."""
    headers = {}
    while (raw := handler.rfile.readline()).strip():
        name, _, value = raw.partition(b":")
        headers[name.decode().lower()] = (raw, value.strip())
    return headers
