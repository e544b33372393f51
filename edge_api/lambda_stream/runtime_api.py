"""Client of the Lambda Runtime API, from which a function receives invocations and to which it sends responses.

Described in AWS's "Using the Lambda runtime API for custom runtimes" and, for streaming responses, in "Building a
custom runtime". One connection is reused from request to request.
"""

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from edge_api.lambda_stream.connection import CompleteResponse, Connection, ConnectionLost, Headers

_ROOT = "/2018-06-01/runtime"
_ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
_ERROR_BODY = "Lambda-Runtime-Function-Error-Body"
_MARKER = "Lambda-Runtime-Invocation-Id"
_STREAMING = {
    "Lambda-Runtime-Function-Response-Mode": "streaming",
    "Transfer-Encoding": "chunked",
    "Trailer": f"{_ERROR_TYPE}, {_ERROR_BODY}",
}


class RuntimeApiRejected(Exception):
    """The API rejected a request, for example a response after the deadline. `fatal`: the API itself has failed."""

    def __init__(self, path: str, response: CompleteResponse) -> None:
        super().__init__(f"{path}: {response.status} {response.body[:200].decode('utf-8', 'replace')}")
        self.fatal = response.status >= HTTPStatus.INTERNAL_SERVER_ERROR


@dataclass(frozen=True)
class Invocation:
    """One call of the function. `marker`, if present, is sent back with the response, because an id can occur twice."""

    id: str
    deadline_ms: int
    event: bytes = field(repr=False)
    marker: str | None = None
    trace_id: str | None = None

    def get_remaining_time_in_millis(self) -> int:
        """Return the time until Lambda kills the process. Named as in the context objects of Lambda's own runtimes."""
        return max(0, self.deadline_ms - int(time.time() * 1000))


class ResponseStream:
    """Streaming response. Every method raises ConnectionLost."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, data: bytes) -> None:
        """Send a part of the body; return when Lambda takes more."""
        await self._connection.send(data)

    async def end(self, failure: Exception | None = None) -> None:
        """End the response. `failure` marks it as incomplete."""
        trailers = {}
        if failure is not None:
            body = base64.b64encode(_error_body(failure)).decode()
            trailers = {_ERROR_TYPE: type(failure).__name__, _ERROR_BODY: body}
        await self._connection.end(trailers)


class RuntimeApi:
    """The Runtime API at one address. Every method raises ConnectionLost or RuntimeApiRejected."""

    def __init__(self, address: str) -> None:
        """Set the address, `host:port`."""
        host, _, port = address.rpartition(":")
        self._address = host or address, int(port) if host else 80
        self._idle: Connection | None = None

    async def next(self) -> Invocation:
        """Wait for the next invocation, without a timeout: Lambda freezes the process in between."""
        is_reused = self._idle is not None
        try:
            response = await self._request("GET", f"{_ROOT}/invocation/next", {}, b"")
        except ConnectionLost:
            # A reused connection may have been closed while it was idle, which shows only now. A new one must work.
            if not is_reused:
                raise
            response = await self._request("GET", f"{_ROOT}/invocation/next", {}, b"")
        headers = response.headers
        return Invocation(
            id=headers["lambda-runtime-aws-request-id"],
            deadline_ms=int(headers["lambda-runtime-deadline-ms"]),
            event=response.body,
            marker=headers.get(_MARKER.lower()),
            trace_id=headers.get("lambda-runtime-trace-id"),
        )

    async def respond(self, invocation: Invocation, value: object) -> None:
        """Send a JSON value as the complete response."""
        path = f"{_ROOT}/invocation/{invocation.id}/response"
        await self._post(path, _marker_header(invocation), msgspec.json.encode(value))

    async def fail(self, invocation: Invocation, failure: Exception) -> None:
        """Report that the invocation has failed."""
        path = f"{_ROOT}/invocation/{invocation.id}/error"
        await self._post(
            path, {**_marker_header(invocation), _ERROR_TYPE: type(failure).__name__}, _error_body(failure)
        )

    async def fail_init(self, failure: Exception) -> None:
        """Report that the function cannot be started."""
        await self._post(f"{_ROOT}/init/error", {_ERROR_TYPE: type(failure).__name__}, _error_body(failure))

    @asynccontextmanager
    async def streaming(self, invocation: Invocation, media_type: str) -> AsyncIterator[ResponseStream]:
        """Send a response in parts. End it before leaving the block; leaving waits until Lambda has received it."""
        path = f"{_ROOT}/invocation/{invocation.id}/response"
        async with self._connected() as connection:
            await connection.begin(
                "POST", path, {**_marker_header(invocation), **_STREAMING, "Content-Type": media_type}
            )
            yield ResponseStream(connection)
            _check(path, await connection.response())

    def close(self) -> None:
        """Close the idle connection."""
        if self._idle is not None:
            self._idle.close()

    async def _post(self, path: str, headers: Headers, body: bytes) -> None:
        await self._request("POST", path, {**headers, "Content-Type": "application/json"}, body)

    async def _request(self, method: str, path: str, headers: Headers, body: bytes) -> CompleteResponse:
        async with self._connected() as connection:
            await connection.begin(method, path, {**headers, "Content-Length": str(len(body))} if body else headers)
            if body:
                await connection.send(body)
            await connection.end({})
            return _check(path, await connection.response())

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """Lend the connection, and keep it for the next request if this one has been completed."""
        connection = self._idle or await Connection.open(*self._address)
        self._idle = None
        try:
            yield connection
        finally:
            if connection.reuse():
                self._idle = connection
            else:
                connection.close()


def _check(path: str, response: CompleteResponse) -> CompleteResponse:
    if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
        raise RuntimeApiRejected(path, response)
    return response


def _marker_header(invocation: Invocation) -> Headers:
    return {} if invocation.marker is None else {_MARKER: invocation.marker}


def _error_body(failure: Exception) -> bytes:
    return msgspec.json.encode(
        {"errorMessage": str(failure), "errorType": type(failure).__name__, "stackTrace": list[str]()}
    )
