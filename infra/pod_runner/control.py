"""Control port of a pod: `start`, `lines` after a number, `cancel`; for sessions `open`, `ask`, `keep`.

Each connection makes one request. A request is one line of JSON with the token of the pod:
`{"token": …, "do": "start", "id": …, "manifest": URL}`, `{…, "do": "lines", "after": n}` or `{…, "do": "cancel"}`. The
reply is one line; for `lines`, all records that come, `{}` while none comes, and at last `{"end": true, …}`. A request
without the right token is closed without a reply.

`{…, "do": "open", "id": …, "size": n}` is followed by n bytes, the task of the session; `{…, "do": "ask", "n": number,
"size": n}` by a request to its program. The reply to `ask` is `{"size": n}` and n bytes, or `{"lost": reason}`. Both
send `{}` while they take. `{…, "do": "keep"}` is the worker's sign of life; the reply is `{"lost": reason}`, with an
empty reason while the program runs.
"""

import asyncio
import hashlib
import hmac
import json
import socket
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias, TypeVar

from infra.contract.errors import ContractError, SessionLost
from infra.pod_runner.connections import LimitedServer
from infra.pod_runner.line_log import LineLog
from infra.pod_runner.task import BadManifest, UnexpectedRequest

MAX_REQUEST_BYTES = 16 * 1024
MAX_BODY_BYTES = 1024 * 1024
"""Size limit of what follows a request. A script of 20,000 characters takes 120 KB in JSON."""
CHUNK_BYTES = 256 * 1024
REQUEST_S = 5.0
"""Time limit for a request to arrive."""
ALIVE_S = 5.0
"""Interval of the empty records that show a follower that the pod is alive, while there is no line."""

Result = TypeVar("Result")
Request: TypeAlias = dict[str, Any]
_ALLOWED = (
    "allowed are start (id, manifest), lines (after, at least 0), cancel, open (id, size), ask (n, size) and keep; "
    f"size is 1 to {MAX_BODY_BYTES}"
)


class Controlled(Protocol):
    """Work of the pod, as the control port sees it."""

    def start(self, name: str, url: str) -> str:
        """Start a call; return the id under which the pod was started first."""
        ...

    async def open(self, name: str, task: bytes) -> str:
        """Start a session; return the id as `start` does. Raises BadManifest, ContractError, OSError."""
        ...

    async def ask(self, number: int, request: bytes) -> bytes:
        """Return the reply of the session. Raises SessionLost, UnexpectedRequest."""
        ...

    def keep(self) -> str:
        """Return the reason for which the session is lost, if it is. Raises UnexpectedRequest."""
        ...

    async def cancel(self) -> None:
        """Kill the program; return when it is dead."""
        ...


class ControlPort(LimitedServer):
    """Server of one pod. `token_sha256` (hex) verifies the token without revealing it."""

    def __init__(self, token_sha256: str, work: Controlled) -> None:
        super().__init__()
        self.log: LineLog | None = None
        self._end: Request = {}
        self._token_sha256 = token_sha256
        self._work = work
        self._has_log, self._has_end = asyncio.Event(), asyncio.Event()

    async def listen(self, port: int) -> tuple[asyncio.Server, int]:
        """Listen on all addresses; return the server and its port, which the kernel chooses if `port` is 0."""
        if socket.has_dualstack_ipv6():
            listening = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            listening = socket.create_server(("", port))
        server = await asyncio.start_server(self._serve, sock=listening, limit=MAX_REQUEST_BYTES)
        return server, listening.getsockname()[1]

    def publish(self, log: LineLog) -> None:
        """Send the lines of this log to all followers, present and future."""
        self.log = log
        self._has_log.set()

    def finish(self, end: Request) -> None:
        """Send the end to all followers, after the last line."""
        self._end = end
        self._has_log.set()
        self._has_end.set()

    async def drain(self, timeout_s: float) -> None:
        """Wait until all followers have got the end."""
        if self._connections:
            await asyncio.wait(self._connections, timeout=timeout_s)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A peer that sends nothing, something else, or goes away, is no concern of the pod.
        with suppress(OSError, ValueError, TimeoutError, asyncio.LimitOverrunError, asyncio.IncompleteReadError):
            async with asyncio.timeout(REQUEST_S):
                request = self._parsed(await reader.readuntil())
                body = await self._body(request, reader) if request else b""
            if request:
                await self._answer(request, body, writer)
                await writer.drain()

    def _parsed(self, line: bytes) -> Request | None:
        request = json.loads(line)
        token = request.get("token") if isinstance(request, dict) else None
        digest = hashlib.sha256(str(token).encode(errors="replace")).hexdigest()
        return request if hmac.compare_digest(digest, self._token_sha256) else None

    async def _body(self, request: Request, reader: asyncio.StreamReader) -> bytes:
        """Read what follows a request; nothing if its size is missing or not allowed."""
        size = request.get("size")
        if not isinstance(size, int) or not 0 < size <= MAX_BODY_BYTES:
            return b""
        return await reader.readexactly(size)

    async def _answer(self, request: Request, body: bytes, writer: asyncio.StreamWriter) -> None:
        match request:
            case {"do": "start", "id": str(name), "manifest": str(url)}:
                _send(writer, {"id": self._work.start(name, url)})
            case {"do": "lines", "after": int(after)} if after >= 0:
                await self._follow(after, writer)
            case {"do": "cancel"}:
                await self._work.cancel()
                _send(writer, {"cancelled": True})
            case {"do": "open" | "ask" | "keep"}:
                await self._answer_session(request, body, writer)
            case _:
                _send(writer, {"error": _ALLOWED})

    async def _answer_session(self, request: Request, body: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            match request:
                case {"do": "open", "id": str(name)} if body:
                    _send(writer, {"id": await self._steadily(self._work.open(name, body), writer)})
                case {"do": "ask", "n": int(number)} if body:
                    reply = await self._steadily(self._work.ask(number, body), writer)
                    _send(writer, {"size": len(reply)})
                    for start in range(0, len(reply), CHUNK_BYTES):
                        writer.write(memoryview(reply)[start : start + CHUNK_BYTES])
                        await writer.drain()
                case {"do": "keep"}:
                    _send(writer, {"lost": self._work.keep()})
                case _:
                    _send(writer, {"error": _ALLOWED})
        except SessionLost as lost:
            _send(writer, {"lost": str(lost)})
        except (UnexpectedRequest, BadManifest, ContractError) as error:
            _send(writer, {"error": str(error)})

    async def _steadily(self, work: Awaitable[Result], writer: asyncio.StreamWriter) -> Result:
        """Await the work; send empty records to show that the pod is alive."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=ALIVE_S))[0]:
                _send(writer, {})
                await writer.drain()
            return task.result()
        finally:
            task.cancel()

    async def _follow(self, after: int, writer: asyncio.StreamWriter) -> None:
        await self._wait(self._has_log, writer)
        while self.log and await self.log.wait(after, ALIVE_S):
            records, after = self.log.read(after)
            writer.write(records or b"{}\n")
            await writer.drain()
        await self._wait(self._has_end, writer)
        _send(writer, self._end)

    async def _wait(self, event: asyncio.Event, writer: asyncio.StreamWriter) -> None:
        while not event.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(ALIVE_S):
                    await event.wait()
                    return
            _send(writer, {})
            await writer.drain()


def _send(writer: asyncio.StreamWriter, reply: Request) -> None:
    writer.write(json.dumps(reply).encode() + b"\n")
