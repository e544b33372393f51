"""Client side of one HTTP/1.1 connection: one request at a time, with a body that can be sent in parts."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import h11

Headers = Mapping[str, str]

_READ_BYTES = 64 * 1024


class ConnectionLost(Exception):
    """The server cannot be reached, has closed the connection, or does not speak HTTP."""


@dataclass(frozen=True)
class CompleteResponse:
    """Complete response. The names of its headers are in lower case."""

    status: int
    headers: Headers
    body: bytes


class Connection:
    """Open connection. Every method raises ConnectionLost. Close it after that, and after a request without an end.

    A cancelled call has written its data completely; only the wait for the server to take it is cancelled.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, host: str, port: int) -> "Connection":
        """Connect to a server. Raises ConnectionLost."""
        try:
            return cls(*await asyncio.open_connection(host, port), f"{host}:{port}")
        except OSError as exc:
            raise ConnectionLost(f"{host}:{port} cannot be reached: {exc.strerror}") from exc

    async def begin(self, method: str, path: str, headers: Headers) -> None:
        """Send the head of a request."""
        await self._send(h11.Request(method=method, target=path, headers=[("Host", self._host), *headers.items()]))

    async def send(self, data: bytes) -> None:
        """Send a part of the request's body; return when the server takes more."""
        await self._send(h11.Data(data=data))

    async def end(self, trailers: Headers) -> None:
        """End the request. Trailers require a chunked body."""
        await self._send(h11.EndOfMessage(headers=[*trailers.items()]))

    async def response(self) -> CompleteResponse:
        """Wait for the response to the last request, without a timeout, and return it."""
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = await self._receive()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
                return CompleteResponse(head.status_code, headers, bytes(body))
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectionLost(f"{self._host} closed the connection")

    def reuse(self) -> bool:
        """Prepare the connection for the next request. Return False if it cannot be reused."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def close(self) -> None:
        """Close the connection immediately, without sending what is still buffered."""
        self._writer.transport.abort()

    async def _send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        try:
            self._writer.write(self._http.send(event) or b"")
            await self._writer.drain()
        except OSError as exc:
            raise ConnectionLost(f"{self._host} closed the connection") from exc

    async def _receive(self) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_READ_BYTES))
        except (OSError, h11.RemoteProtocolError) as exc:
            raise ConnectionLost(f"{self._host} closed or garbled the connection: {exc}") from exc
        return event
