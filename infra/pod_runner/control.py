"""Control port of a pod: `start`, `lines` after a number, `cancel`. Each connection makes one request.

A request is one line of JSON with the token of the pod: `{"token": …, "do": "start", "id": …, "manifest": URL}`,
`{…, "do": "lines", "after": n}` or `{…, "do": "cancel"}`. The reply is one line; for `lines`, all records that come,
`{}` while none comes, and at last `{"end": true, …}`. A request without the right token is closed without a reply.
"""

import asyncio
import hashlib
import hmac
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

from infra.pod_runner.line_log import LineLog

MAX_REQUEST_BYTES = 16 * 1024
MAX_CONNECTIONS = 64
REQUEST_S = 5.0
"""Time limit for a request to arrive."""
ALIVE_S = 5.0
"""Interval of the empty records that show a follower that the pod is alive, while there is no line."""

Request: TypeAlias = dict[str, Any]


class ControlPort:
    """Server of one pod. `token_sha256` (hex) verifies the token without revealing it.

    `start` gets the id and the URL of a start and returns the id under which the pod was started first; `cancel`
    returns when the program is dead.
    """

    def __init__(
        self, token_sha256: str, start: Callable[[str, str], str], cancel: Callable[[], Awaitable[None]]
    ) -> None:
        self.log: LineLog | None = None
        self._end: Request = {}
        self._token_sha256 = token_sha256
        self._start = start
        self._cancel = cancel
        self._has_log, self._has_end = asyncio.Event(), asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            # A peer that sends nothing, something else, or goes away, is no concern of the pod.
            with suppress(OSError, ValueError, TimeoutError, asyncio.LimitOverrunError, asyncio.IncompleteReadError):
                async with asyncio.timeout(REQUEST_S):
                    request = self._parsed(await reader.readuntil())
                if request:
                    await self._answer(request, writer)
                    await writer.drain()
        finally:
            self._connections.discard(task)
            writer.close()

    def _parsed(self, line: bytes) -> Request | None:
        request = json.loads(line)
        token = request.get("token") if isinstance(request, dict) else None
        digest = hashlib.sha256(str(token).encode(errors="replace")).hexdigest()
        return request if hmac.compare_digest(digest, self._token_sha256) else None

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        match request:
            case {"do": "start", "id": str(name), "manifest": str(url)}:
                _send(writer, {"id": self._start(name, url)})
            case {"do": "lines", "after": int(after)} if after >= 0:
                await self._follow(after, writer)
            case {"do": "cancel"}:
                await self._cancel()
                _send(writer, {"cancelled": True})
            case _:
                _send(writer, {"error": "allowed are start (id, manifest), lines (after, at least 0) and cancel"})

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
