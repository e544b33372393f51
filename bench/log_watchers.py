"""Watchers of one log in this process, cheap enough that servers are saturated before them."""

import asyncio
import re
import time
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from bench.generator import Generator

EVENT = re.compile(rb'"seq":(\d+)[^\n]*?"text":"([\d.]+) ')
NUMBER = b'"seq":'
TIMED = 10
"""Number of watchers that record the arrival of each event. The others only count events."""
ENDING_BYTES = 1024
"""Length of the last part of a log in which its end is looked for."""


@dataclass
class Watch:
    """Result of one watcher: number of events, last sequence number, and whether an event was missing or repeated."""

    timed: bool
    count: int = 0
    last: int = 0
    broken: bool = False
    ended: bool = False
    times: list[tuple[int, float, float]] = field(default_factory=list)
    """Sequence number, creation time and arrival time of each event; times in s since the epoch."""

    def take(self, text: bytes) -> None:
        """Record the events in complete lines."""
        now = time.time()
        if self.timed:
            self.times += [(int(seq), float(made), now) for seq, made in EVENT.findall(text)]
        if arrived := text.count(NUMBER):
            self.count += arrived
            # Only the last number is decoded: it differs from the count if an event was missing, repeated or reordered.
            self.last = int(text[text.rindex(NUMBER) + len(NUMBER) :].partition(b",")[0])
            self.broken |= self.last != self.count


async def stream(url: str, path: str, token: str, watch: Watch, connected: asyncio.Event) -> None:
    """Follow a run's log over SSE until its end, without reconnecting."""
    headers = f"Authorization: Bearer {token}\r\nHost: {urlsplit(url).netloc}\r\nAccept: text/event-stream"
    request = f"GET {path}/stream HTTP/1.1\r\n{headers}\r\n\r\n"
    await _follow(url, request, watch, connected, first=b'"seq":1,', end=b"event: end")


async def channel(url: str, name: str, watch: Watch, connected: asyncio.Event) -> None:
    """Follow a Redis channel until the message `end`."""
    parts = urlsplit(url)
    login = f"AUTH {parts.username or 'default'} {parts.password}\r\n" if parts.password else ""
    await _follow(url, f"{login}SUBSCRIBE {name}\r\n", watch, connected, first=b"subscribe", end=b"\r\nend\r\n")


async def poll(url: str, path: str, token: str, watch: Watch, connected: asyncio.Event, pause_s: float) -> None:
    """Follow a run's log by requesting pages, pausing between requests."""
    connected.set()
    with closing(Generator(url, token)) as api:
        while not watch.ended:
            answer = await api.request("GET", f"{path}?after={watch.last}&limit=1000")
            watch.take(answer.partition(b'"last_seq"')[0])
            watch.ended = b'"done":true' in answer
            if b'"events":[]' in answer or watch.count == watch.last:
                await asyncio.sleep(pause_s)


async def _follow(url: str, request: str, watch: Watch, connected: asyncio.Event, *, first: bytes, end: bytes) -> None:
    """Send the request, set `connected` at the text `first`, and return after the line `end` or the connection."""
    parts, ended = urlsplit(url), asyncio.Event()
    assert parts.hostname
    assert parts.port
    loop = asyncio.get_running_loop()
    watcher = _Watcher(request.encode(), watch, connected, ended, first, end)
    transport, _ = await loop.create_connection(lambda: watcher, parts.hostname or "", parts.port or 0)
    try:
        await ended.wait()
    finally:
        transport.close()


class _Watcher(asyncio.Protocol):
    """Connection of one watcher. Without streams and tasks, because a thousand of them share a process."""

    def __init__(
        self, request: bytes, watch: Watch, connected: asyncio.Event, ended: asyncio.Event, first: bytes, end: bytes
    ) -> None:
        self._request = request
        self._watch = watch
        self._connected = connected
        self._ended = ended
        self._first = first
        self._end = end
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._connected.is_set() and self._first in data:
            self._connected.set()
        data = self._rest + data if self._rest else data
        complete = data.rfind(b"\n") + 1
        self._rest = data[complete:]
        lines = data if complete == len(data) else data[:complete]
        self._watch.take(lines)
        if self._end in lines[-ENDING_BYTES:]:
            self._watch.ended = True
            self._ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()


def latencies(watches: Sequence[Watch], sent: Sequence[tuple[int, float]]) -> tuple[list[float], list[float]]:
    """Return the seconds from creation to arrival of each event, and from the sending of its batch to its arrival."""
    lasts = [last for last, _ in sent]
    from_made, from_sent = [], []
    for watch in watches:
        for seq, made, arrived in watch.times:
            from_made.append(arrived - made)
            if (batch := bisect_left(lasts, seq)) < len(sent):
                from_sent.append(arrived - sent[batch][1])
    return from_made, from_sent
