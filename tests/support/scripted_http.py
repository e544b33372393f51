"""Connections of scripted HTTP servers: tests answer each request with bytes of their choice, or break every rule."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Request:
    """Received request. `target` is the raw request target; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


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
Handle: TypeAlias = Callable[[StreamRequestHandler, threading.Event], None]


@contextmanager
def scripted_connections(handle: Handle, *, waits_for_answers: bool) -> Iterator[str]:
    """Call `handle` in a thread for each connection; yield the server's address `http://HOST:PORT`.

    The event is set at the exit of the context, which closes all connections. `waits_for_answers`: the exit also waits
    for the threads.
    """
    ending = threading.Event()

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            handle(self, ending)

        def finish(self) -> None:
            self.rfile.close()

    class Server(ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = not waits_for_answers
        request_queue_size = 100

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            ending.set()
            server.shutdown()
            thread.join()


def read_request(handler: StreamRequestHandler) -> Request | None:
    """Read a request; None if the client has closed the connection before."""
    line = handler.rfile.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers = {}
    while (header := handler.rfile.readline().decode("latin-1").strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    return Request(line[0], line[1], headers, handler.rfile.read(int(headers.get("content-length", 0))))
