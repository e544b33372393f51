"""Client of the control port of a pod (infra/pod_runner/control.py). One connection for each request."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from infra.contract.errors import ExecutorUnavailable, SessionLost
from infra.k8s_executor.protocol import LineRecord

CONNECT_S = 5.0
SILENCE_S = 20.0
"""Time after which a silent pod counts as unreachable. It sends something every five seconds."""
MAX_RECORD_BYTES = 256 * 1024
"""Size limit of a record: 4096 characters, each of which may take six bytes in JSON, and much more than that."""

Message = TypeVar("Message", bound=msgspec.Struct)


class PodUnreachable(ExecutorUnavailable):
    """Pod that does not answer at its control port, or ended the connection."""


class SessionRefused(ExecutorUnavailable):
    """Session that the pod cannot start."""


class _Reply(msgspec.Struct, frozen=True):
    id: str = ""
    cancelled: bool = False
    error: str = ""
    lost: str | None = None
    size: int | None = None

    @property
    def is_empty(self) -> bool:
        """True for a record that only shows that the pod is alive."""
        return self == _Reply()


class PodControl:
    """Control port of one pod. All methods raise PodUnreachable."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._host = host
        self._port = port
        self._token = token
        self._open: set[asyncio.StreamWriter] = set()

    def hang_up(self) -> None:
        """End all requests under way, because the pod is known to have ended: they raise PodUnreachable."""
        for writer in self._open:
            writer.transport.abort()

    async def start(self, name: str, manifest_url: str) -> str:
        """Start the call, unless one was started before; return the name of the one that was."""
        reply = await self._ask(CONNECT_S, do="start", id=name, manifest=manifest_url)
        if not reply.id:
            raise PodUnreachable(f"the pod did not start the call: {reply.error or 'no reason given'}")
        return reply.id

    async def cancel(self, timeout_s: float) -> None:
        """End the program; return when all its processes are dead."""
        if not (await self._ask(timeout_s, do="cancel")).cancelled:
            raise PodUnreachable("the pod did not confirm the cancellation")

    async def records(self, after: int) -> AsyncGenerator[LineRecord, None]:
        """Yield the lines after a number as they come, and the end. Empty records are left out."""
        async with self._connected(do="lines", after=after) as reader:
            while True:
                record = await _read(reader, LineRecord, SILENCE_S)
                if record.n or record.end is True:
                    yield record
                if record.end is True:
                    return

    async def open(self, name: str, manifest: bytes) -> str:
        """Start a session, unless the pod was started before; return the name of what was. Raises SessionRefused."""
        async with self._connected(manifest, do="open", id=name, size=len(manifest)) as reader:
            reply = await _read_reply(reader)
        if not reply.id:
            message = f"the pod did not start the program ({reply.error or 'it is being ended'})"
            raise SessionRefused(f"{message}; is its image of this release?")
        return reply.id

    async def ask(self, number: int, request: bytes, max_reply_bytes: int) -> bytes:
        """Return the reply of the session's program to a request, which it gets once, however often this is called.

        Raises SessionLost.
        """
        async with self._connected(request, do="ask", n=number, size=len(request)) as reader:
            reply = await _read_reply(reader)
            if reply.size is None:
                raise SessionLost(reply.lost or f"the pod refused the request: {reply.error}")
            if not 0 <= reply.size <= max_reply_bytes:
                raise SessionLost(f"its answer has {reply.size} bytes; allowed are {max_reply_bytes}")
            return await _read_bytes(reader, reply.size)

    async def keep(self) -> str:
        """Send a sign of life; return why the session is lost, or an empty text."""
        reply = await self._ask(CONNECT_S, do="keep")
        return reply.lost or reply.error

    async def _ask(self, timeout_s: float, **request: Any) -> _Reply:
        async with self._connected(**request) as reader:
            return await _read(reader, _Reply, timeout_s)

    @asynccontextmanager
    async def _connected(self, body: bytes = b"", **request: Any) -> AsyncIterator[asyncio.StreamReader]:
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(self._host, self._port, limit=MAX_RECORD_BYTES)
        except (OSError, TimeoutError) as error:
            raise PodUnreachable(f"the pod does not answer at its control port: {type(error).__name__}") from error
        self._open.add(writer)
        try:
            writer.write(msgspec.json.encode({"token": self._token, **request}) + b"\n" + body)
            yield reader
        finally:
            self._open.discard(writer)
            writer.close()


async def _read(reader: asyncio.StreamReader, kind: type[Message], timeout_s: float) -> Message:
    try:
        async with asyncio.timeout(timeout_s):
            return msgspec.json.decode(await reader.readuntil(), type=kind)
    except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, msgspec.MsgspecError) as error:
        raise PodUnreachable(f"the pod ended the connection or was silent: {type(error).__name__}") from error


async def _read_reply(reader: asyncio.StreamReader) -> _Reply:
    while (reply := await _read(reader, _Reply, SILENCE_S)).is_empty:
        pass
    return reply


async def _read_bytes(reader: asyncio.StreamReader, size: int) -> bytes:
    data = bytearray()
    try:
        while len(data) < size:
            async with asyncio.timeout(SILENCE_S):
                chunk = await reader.read(min(size - len(data), MAX_RECORD_BYTES))
            if not chunk:
                raise PodUnreachable("the pod ended the connection in the middle of a reply")
            data += chunk
    except OSError as error:  # also TimeoutError
        raise PodUnreachable(f"the connection to the pod failed in a reply: {type(error).__name__}") from error
    return bytes(data)
