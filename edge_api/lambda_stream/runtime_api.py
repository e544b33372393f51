"""The Lambda Runtime API: a function gets its invocations from it and answers them, also bit by bit.

Described in AWS's "Using the Lambda runtime API for custom runtimes" and, for answers that stream, in "Building a
custom runtime". One connection is kept from request to request.
"""

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from edge_api.lambda_stream.connection import Answer, Connection, ConnectionLost, Headers

_ROOT = "/2018-06-01/runtime"
_ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
_ERROR_BODY = "Lambda-Runtime-Function-Error-Body"
_MARKER = "Lambda-Runtime-Invocation-Id"
_STREAMING = {
    "Lambda-Runtime-Function-Response-Mode": "streaming",
    "Transfer-Encoding": "chunked",
    "Trailer": f"{_ERROR_TYPE}, {_ERROR_BODY}",
}


class Refused(Exception):
    """The API does not take a request: an answer that comes too late, or it is itself at its end (`fatal`)."""

    def __init__(self, path: str, answer: Answer) -> None:
        super().__init__(f"{path}: {answer.status} {answer.body[:200].decode('utf-8', 'replace')}")
        self.fatal = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR


@dataclass(frozen=True)
class Invocation:
    """One call of the function. Its `marker`, if it has one, goes back with the answer: an id can come twice."""

    id: str
    deadline_ms: int
    event: bytes = field(repr=False)
    marker: str | None = None
    trace_id: str | None = None

    def get_remaining_time_in_millis(self) -> int:
        """What is left until Lambda kills the process, as the contexts of Lambda's own runtimes say it."""
        return max(0, self.deadline_ms - int(time.time() * 1000))


class Reply:
    """An answer under way. Every method raises ConnectionLost."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, data: bytes) -> None:
        """Send a part; returns when Lambda takes more."""
        await self._connection.send(data)

    async def end(self, failure: Exception | None = None) -> None:
        """That was all, or all there will be because of a failure."""
        trailers = {}
        if failure is not None:
            body = base64.b64encode(_described(failure)).decode()
            trailers = {_ERROR_TYPE: type(failure).__name__, _ERROR_BODY: body}
        await self._connection.end(trailers)


class RuntimeApi:
    """Every method raises ConnectionLost or Refused."""

    def __init__(self, address: str) -> None:
        """`address` is `host:port`."""
        host, _, port = address.rpartition(":")
        self._place = host or address, int(port) if host else 80
        self._idle: Connection | None = None

    async def next(self) -> Invocation:
        """Wait for the next invocation, for hours if need be; the process may be frozen meanwhile."""
        kept = self._idle is not None
        try:
            answer = await self._ask("GET", f"{_ROOT}/invocation/next", {}, b"")
        except ConnectionLost:
            # That a kept connection has been closed can show as late as when it is used again.
            if not kept:
                raise
            answer = await self._ask("GET", f"{_ROOT}/invocation/next", {}, b"")
        headers = answer.headers
        return Invocation(
            id=headers["lambda-runtime-aws-request-id"],
            deadline_ms=int(headers["lambda-runtime-deadline-ms"]),
            event=answer.body,
            marker=headers.get(_MARKER.lower()),
            trace_id=headers.get("lambda-runtime-trace-id"),
        )

    async def reply(self, invocation: Invocation, value: object) -> None:
        """Answer with a JSON value, as a whole."""
        path = f"{_ROOT}/invocation/{invocation.id}/response"
        await self._post(path, _marked(invocation), msgspec.json.encode(value))

    async def fail(self, invocation: Invocation, failure: Exception) -> None:
        """Answer that there is no answer."""
        path = f"{_ROOT}/invocation/{invocation.id}/error"
        await self._post(path, {**_marked(invocation), _ERROR_TYPE: type(failure).__name__}, _described(failure))

    async def fail_init(self, failure: Exception) -> None:
        """The function cannot be started."""
        await self._post(f"{_ROOT}/init/error", {_ERROR_TYPE: type(failure).__name__}, _described(failure))

    @asynccontextmanager
    async def streaming(self, invocation: Invocation, media_type: str) -> AsyncIterator[Reply]:
        """Answer bit by bit. The reply must have been ended on leaving, which waits until Lambda has all of it."""
        path = f"{_ROOT}/invocation/{invocation.id}/response"
        async with self._connected() as connection:
            await connection.begin("POST", path, {**_marked(invocation), **_STREAMING, "Content-Type": media_type})
            yield Reply(connection)
            _check(path, await connection.answer())

    def close(self) -> None:
        """Let go of the connection that is kept."""
        if self._idle is not None:
            self._idle.close()

    async def _post(self, path: str, headers: Headers, body: bytes) -> None:
        await self._ask("POST", path, {**headers, "Content-Type": "application/json"}, body)

    async def _ask(self, method: str, path: str, headers: Headers, body: bytes) -> Answer:
        async with self._connected() as connection:
            await connection.begin(method, path, {**headers, "Content-Length": str(len(body))} if body else headers)
            if body:
                await connection.send(body)
            await connection.end({})
            return _check(path, await connection.answer())

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """The connection, kept for the next request if this one went all the way."""
        connection = self._idle or await Connection.open(*self._place)
        self._idle = None
        try:
            yield connection
        finally:
            if connection.renew():
                self._idle = connection
            else:
                connection.close()


def _check(path: str, answer: Answer) -> Answer:
    if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        raise Refused(path, answer)
    return answer


def _marked(invocation: Invocation) -> Headers:
    return {} if invocation.marker is None else {_MARKER: invocation.marker}


def _described(failure: Exception) -> bytes:
    return msgspec.json.encode(
        {"errorMessage": str(failure), "errorType": type(failure).__name__, "stackTrace": list[str]()}
    )
