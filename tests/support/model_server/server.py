"""Server that answers requests from a script, each with bytes of the test's choice."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler

from tests.support.scripted_http import Answer, Request, Wire, read_request, scripted_connections


@dataclass
class ModelServer:
    """Server that sends `answers` in order. After the last one, `respond` chooses an answer by the request, for
    programs that ask in an order of their own. `requests`: what was received; `connections`: how many were accepted;
    `left`: how many silent answers ended because the client closed the connection."""

    url: str
    answers: deque[Answer] = field(default_factory=deque)
    respond: Callable[[Request], Answer] | None = None
    requests: list[Request] = field(default_factory=list)
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
    lock = threading.Lock()

    def handle(handler: StreamRequestHandler, ending: threading.Event) -> None:
        made.connections += 1
        while (request := _read(handler)) is not None:
            with lock:
                made.requests.append(request)
                answer = made.answers.popleft() if made.answers else None
            wire = Wire(handler.request, ending)
            with suppress(OSError):  # the client may leave
                (answer or _chosen(made, request))(wire)
            if not wire.kept:
                return

    with scripted_connections(handle, waits_for_answers=False) as url:
        made = ModelServer(f"{url}/v1")
        yield made


def _chosen(server: ModelServer, request: Request) -> Answer:
    if server.respond is not None:
        return server.respond(request)
    return lambda wire: wire.send(b"HTTP/1.1 418 No Script\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def _read(handler: StreamRequestHandler) -> Request | None:
    try:
        return read_request(handler)
    except OSError:
        return None
