"""Server that answers requests from a script, each with bytes of the test's choice."""

import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Asked:
    """Received request. Header names are in lower case."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def model(self) -> str:
        return str(self.json["model"])


class Wire:
    """Connection whose request has been read."""

    def __init__(self, connection: socket.socket, ending: threading.Event) -> None:
        self._connection = connection
        self._ending = ending
        self.kept = False
        """Whether another request may follow."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def reset(self) -> None:
        """Reset the connection, so that the client sees an error and not the end of the answer."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    def silence(self, seconds: float | None = None) -> None:
        """Send nothing for some time, or until the client closes the connection or the server stops."""
        if seconds is not None:
            self._ending.wait(seconds)
            return
        self._connection.settimeout(0.02)
        while not self._ending.is_set():
            try:
                if not self._connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


Answer: TypeAlias = Callable[[Wire], None]


@dataclass
class ModelServer:
    """Server that sends `answers` in order. After the last one, `respond` chooses an answer by the request, for
    programs that ask in an order of their own. `requests`: what was received; `connections`: how many were accepted;
    `left`: how many silent answers ended because the client closed the connection."""

    url: str
    answers: deque[Answer] = field(default_factory=deque)
    respond: Callable[[Asked], Answer] | None = None
    requests: list[Asked] = field(default_factory=list)
    connections: int = 0
    left: int = 0

    def then(self, *answers: Answer) -> None:
        self.answers.extend(answers)

    def hang(self, wire: Wire) -> None:
        """Keep the connection open without a byte until the client has closed it."""
        wire.silence()
        self.left += 1


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """Run a server on a free port; close it and all connections at the exit of the context."""
    ending = threading.Event()
    lock = threading.Lock()

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            made.connections += 1
            while (request := _read(self)) is not None:
                with lock:
                    made.requests.append(request)
                    answer = made.answers.popleft() if made.answers else None
                wire = Wire(self.request, ending)
                with suppress(OSError):  # the client may leave
                    (answer or _chosen(made, request))(wire)
                if not wire.kept:
                    return

        def finish(self) -> None:
            self.rfile.close()

    class Server(ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 100

    with Server(("127.0.0.1", 0), Handler) as server:
        made = ModelServer(f"http://127.0.0.1:{server.server_address[1]}/v1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            ending.set()
            server.shutdown()
            thread.join()


def _chosen(server: ModelServer, request: Asked) -> Answer:
    if server.respond is not None:
        return server.respond(request)
    return lambda wire: wire.send(b"HTTP/1.1 418 No Script\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def _read(handler: StreamRequestHandler) -> Asked | None:
    try:
        line = handler.rfile.readline().decode("latin-1").split()
        if len(line) != 3:
            return None
        headers = {}
        while (header := handler.rfile.readline().decode("latin-1").strip()) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        return Asked(line[1], headers, handler.rfile.read(int(headers.get("content-length", 0))))
    except OSError:
        return None
