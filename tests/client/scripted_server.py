"""Scripted HTTP server on real sockets, one request per connection: it can break every rule of the protocol."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from socketserver import StreamRequestHandler
from typing import Any

from tests.support.scripted_http import Answer, Request, Wire, read_request, scripted_connections

TOKEN = "the-secret-token-of-the-tests"
Piece = bytes | Callable[[Wire], None]


@dataclass
class ScriptedServer:
    """Server that sends `answers` in order, then `always`; `requests` are the requests received."""

    url: str
    always: Answer
    answers: deque[Answer] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)

    def then(self, *answers: Answer) -> None:
        self.answers.extend(answers)

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.requests]

    @property
    def last_ids(self) -> list[str | None]:
        return [request.headers.get("last-event-id") for request in self.requests]


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """Run a server on a free port; close it and all connections at the exit of the context."""
    lock = threading.Lock()

    def handle(handler: StreamRequestHandler, ending: threading.Event) -> None:
        request = read_request(handler)
        if request is None:
            return
        with lock:
            made.requests.append(request)
            answer = made.answers.popleft() if made.answers else made.always
        with suppress(OSError):  # the client may leave
            answer(Wire(handler.request, ending))

    with scripted_connections(handle, waits_for_answers=True) as url:
        made = ScriptedServer(url, problem(418, "no answer was made up"))
        yield made


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def reply(status: int = 200, body: bytes | str = b"", kind: str = "application/json", **headers: str) -> Answer:
    """Return an answer that sends a response; `retry_after="1"` becomes the header `retry-after`."""
    content = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sized = {"Content-Length": str(len(content)), "Content-Type": kind} if status != 204 else {}
    return lambda wire: wire.send(_head(status, sized | named) + content)


def ok(value: object, status: int = 200) -> Answer:
    """Return an answer that sends a JSON value."""
    return reply(status, json.dumps(value))


def problem(status: int, detail: str, **more: str) -> Answer:
    """Return an answer that sends an error in the format of the API."""
    body = {"type": "urn:swissbrain:problem:test", "title": "t", "status": status, "detail": detail, **more}
    return reply(status, json.dumps(body), "application/problem+json")


def page(status: int = 200, **headers: str) -> Answer:
    """Return an answer that sends HTML, as a proxy in front of the API does."""
    return reply(status, "<html><body><h1>nginx\n</h1></body></html>", "text/html", **headers)


def reset(wire: Wire) -> None:
    """Reset the connection without a response."""
    wire.reset()


def close_early(_: Wire) -> None:
    """Close the connection without a response."""


def silent(wire: Wire) -> None:
    """Keep the connection open without a response."""
    wire.silence()


def partial(body: bytes = b'{"run_id": "', kind: str = "application/json") -> Answer:
    """Return an answer that sends a truncated response."""
    return lambda wire: wire.send(_head(200, {"Content-Type": kind, "Content-Length": str(len(body) + 1000)}) + body)


def event(seq: int, kind: str = "log", **data: Any) -> bytes:
    """Return an event of a log as an SSE frame."""
    value = {"seq": seq, "ts": 1_790_000_000_000 + seq, "type": kind, "step": None, "data": data}
    return f"id: {seq}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def gap(first: int, last: int) -> bytes:
    return f'event: gap\nid: {last}\ndata: {{"first": {first}, "last": {last}}}\n\n'.encode()


def end(last_seq: int, status: str = "succeeded") -> bytes:
    return f'event: end\ndata: {{"status": "{status}", "last_seq": {last_seq}}}\n\n'.encode()


def sse(*pieces: Piece, ends: Answer | None = None) -> Answer:
    """Return an answer that streams the pieces as separate chunks; then ends regularly, or with `ends`.

    A piece may be a call instead, such as `Wire.silence`.
    """

    def answer(wire: Wire) -> None:
        wire.send(_head(200, {"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"}))
        for piece in pieces:
            if isinstance(piece, bytes):
                wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                piece(wire)
        if ends is None:
            wire.send(b"0\r\n\r\n")
        else:
            ends(wire)

    return answer


def bytewise(*pieces: bytes) -> list[bytes]:
    """Return the pieces as chunks of one byte."""
    return [bytes([byte]) for byte in b"".join(pieces)]


def run(run_id: str = "run_1", status: str = "queued", **changes: Any) -> dict[str, Any]:
    """Return a run in the format of the API, with a field of a later release."""
    return {
        "run_id": run_id,
        "status": status,
        "prompt": "x",
        "plan": None,
        "priority": 4,
        "max_attempts": 3,
        "timeout_s": 60,
        "metadata": {},
        "attempt": 0,
        "cancel_requested": False,
        "last_seq": 0,
        "created_ms": 1_790_000_000_000,
        "queued_ms": 1_790_000_000_000,
        "started_ms": None,
        "finished_ms": None,
        "result": None,
        "error": None,
        "links": {},
        "of_a_later_release": {"x": 1},
        **changes,
    }


def summary(run_id: str = "run_1", **changes: Any) -> dict[str, Any]:
    """Return a run in the format of a list."""
    left_out = ("prompt", "plan", "max_attempts", "timeout_s", "result", "links")
    kept = {name: value for name, value in run(run_id).items() if name not in left_out}
    return {**kept, "title": "x", "steps": None, **changes}


def state(status: str = "queued") -> dict[str, Any]:
    """Return the response to a transition."""
    return {"run_id": "run_1", "status": status, "cancel_requested": False}
