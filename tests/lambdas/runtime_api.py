"""Lambda Runtime API over real sockets: as strict as the real one, and as unreliable as a test wants."""

import asyncio
import json
import time
from collections import deque
from typing import Any, Protocol

import h11

from tests.lambdas.call import Call
from tests.support.connections import closed_after

ROOT = "/2018-06-01/runtime"
MAX_BYTES = 6 * 1024 * 1024
HEAD_BYTES = 16 * 1024
STREAM_TYPE = "application/vnd.awslambda.http-integration-response"


class ConnectionClosed(Exception):
    """The connection was closed, by the function or by this API."""


class Wire:
    """Connection of the function, read and written with h11."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.http = h11.Connection(h11.SERVER)

    async def receive(self) -> Any:
        if self.http.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))
        try:
            while (event := self.http.next_event()) is h11.NEED_DATA:
                self.http.receive_data(await self.reader.read(65536))
        except (OSError, h11.RemoteProtocolError) as exc:
            raise ConnectionClosed(str(exc)) from exc
        if isinstance(event, h11.ConnectionClosed):
            raise ConnectionClosed("closed")
        return event

    async def send(self, event: Any) -> None:
        try:
            self.writer.write(self.http.send(event) or b"")
            await self.writer.drain()
        except OSError as exc:
            raise ConnectionClosed(str(exc)) from exc

    async def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        head = [*headers.items(), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        await self.send(h11.Response(status_code=status, headers=head))
        await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())

    async def body(self) -> bytes:
        """Return the rest of a request's body."""
        parts = bytearray()
        while not isinstance(event := await self.receive(), h11.EndOfMessage):
            parts += event.data
        return bytes(parts)


class Function(Protocol):
    """Interface through which the API reports on the function."""

    def freeze(self) -> None:
        """Called when the function waits and there is no invocation for it."""

    def thaw(self) -> None:
        """Called when there is an invocation for the function."""

    def begin(self, call: Call) -> None:
        """Called when the function has received an invocation."""


class RuntimeApi:
    """Runtime API of one execution environment."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._waiting: deque[Call] = deque()
        self._arrived = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._wires: set[Wire] = set()
        self.address = ""
        self.current: Call | None = None
        self.idle: Wire | None = None
        self.init_error: dict[str, Any] | None = None
        self.connections = 0
        self.violations: list[str] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.break_after: int | None = None
        """Number of pieces of the next streamed response after which the connection is closed."""
        self.refuse_with: int | None = None
        """Status with which the next response is rejected."""

    async def start(self) -> None:
        self._server = await asyncio.start_server(closed_after(self._serve), "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        for wire in self._wires:
            wire.writer.transport.abort()
        await self._server.wait_closed()

    def put(self, call: Call) -> None:
        """Queue a call for the next request for an invocation."""
        self._waiting.append(call)
        self._arrived.set()
        self._function.thaw()

    def abandon(self) -> None:
        """Report that the function has exited."""
        for call in [self.current, *self._waiting]:
            if call:
                call.end("exited")
        self.current = None
        self._waiting.clear()

    def drop_idle(self) -> None:
        """Close the connection on which the function waits."""
        assert self.idle
        self.idle.writer.transport.abort()
        self._function.thaw()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        self._wires.add(wire)
        self.connections += 1
        try:
            while not isinstance(request := await wire.receive(), h11.ConnectionClosed):
                await self._handle(wire, request)
                if wire.http.our_state is not h11.DONE or wire.http.their_state is not h11.DONE:
                    break
                wire.http.start_next_cycle()
        except ConnectionClosed:
            pass
        finally:
            self._wires.discard(wire)
            writer.transport.abort()

    async def _handle(self, wire: Wire, request: h11.Request) -> None:
        method, path = request.method.decode(), request.target.decode()
        headers = {name.decode(): value.decode() for name, value in request.headers}
        call = self.current
        if (method, path) == ("GET", f"{ROOT}/invocation/next"):
            await wire.body()
            await self._next(wire)
        elif (method, path) == ("POST", f"{ROOT}/init/error"):
            self.init_error = json.loads(await wire.body())
            await wire.answer(202, {}, b"{}")
        elif call and (method, path) == ("POST", f"{ROOT}/invocation/{call.id}/response"):
            await self._response(wire, call, headers)
        elif call and (method, path) == ("POST", f"{ROOT}/invocation/{call.id}/error"):
            call.error = json.loads(await wire.body())
            await self._accept(wire, call, "failed")
        else:
            await self._refuse(wire, 403, f"{method} {path}")

    async def _next(self, wire: Wire) -> None:
        if self.current:
            return await self._refuse(wire, 403, "next while an invocation is unanswered")
        await self._work(wire)
        call = self.current = self._waiting.popleft()
        call.deadline_ms = int((time.time() + call.timeout_s) * 1000)
        headers = {
            "Lambda-Runtime-Aws-Request-Id": call.id,
            "Lambda-Runtime-Invocation-Id": call.marker,
            "Lambda-Runtime-Deadline-Ms": str(call.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-central-2:1:function:f",
            "Lambda-Runtime-Trace-Id": f"Root=1-{call.id[:8]}",
        }
        self._function.begin(call)
        await wire.answer(200, headers, call.event)
        return None

    async def _work(self, wire: Wire) -> None:
        """Wait for a call while the function is frozen. Raises ConnectionClosed."""
        self.idle, closing = wire, asyncio.create_task(wire.reader.read(1))
        try:
            while not self._waiting:
                self._arrived.clear()
                self._function.freeze()
                arriving = asyncio.create_task(self._arrived.wait())
                await asyncio.wait({closing, arriving}, return_when=asyncio.FIRST_COMPLETED)
                arriving.cancel()
                if closing.done():
                    raise ConnectionClosed("closed while it waited")
        finally:
            self.idle = None
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    async def _response(self, wire: Wire, call: Call, headers: dict[str, str]) -> None:
        if headers.get("lambda-runtime-invocation-id") != call.marker:
            return await self._refuse(wire, 410, "the answer belongs to another invocation")
        if self.refuse_with:
            status, self.refuse_with, self.current = self.refuse_with, None, None
            call.end("broken")
            await wire.body()
            return await wire.answer(status, {}, b'{"errorType":"ErrorRuntimeInvokeTimeout"}')
        if headers.get("lambda-runtime-function-response-mode") == "streaming":
            return await self._stream(wire, call, headers)
        call.body += await wire.body()
        if len(call.body) > MAX_BYTES:
            call.end("too large")
            self.current = None
            return await wire.answer(413, {}, b"{}")
        json.loads(call.body)
        return await self._accept(wire, call, "answered")

    async def _stream(self, wire: Wire, call: Call, headers: dict[str, str]) -> None:
        call.streamed = True
        call.changed()
        if headers.get("transfer-encoding") != "chunked" or headers.get("content-type") != STREAM_TYPE:
            self.violations.append(f"not a streamed answer: {headers}")
        try:
            await self.reading.wait()
            while isinstance(event := await wire.receive(), h11.Data):
                call.body += event.data
                call.pieces += event.chunk_end
                if call.pieces == self.break_after:
                    self.break_after = None
                    raise ConnectionClosed("on purpose")
                call.changed()
                await self.reading.wait()
        except ConnectionClosed:
            self.current = None
            call.end("broken")
            raise
        if bytes(8) not in call.body[:HEAD_BYTES]:
            self.violations.append("the answer does not begin with its head")
        trailers = {name.decode(): value.decode() for name, value in event.headers}
        announced = {name.strip().lower() for name in headers.get("trailer", "").split(",")}
        if not trailers.keys() <= announced:
            self.violations.append(f"trailers that were not announced: {trailers}")
        self.current = None
        call.end_with_trailers(trailers)
        await wire.answer(202, {}, b'{"status":"OK"}')

    async def _accept(self, wire: Wire, call: Call, outcome: str) -> None:
        self.current = None
        call.end(outcome)
        await wire.answer(202, {}, b'{"status":"OK"}')

    async def _refuse(self, wire: Wire, status: int, reason: str) -> None:
        self.violations.append(reason)
        await wire.body()
        await wire.answer(status, {}, json.dumps({"errorMessage": reason}).encode())
