"""Watchers of one log in this process, cheap enough that servers are saturated before them."""

import asyncio
import re
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

EVENT = re.compile(rb'"seq":(\d+)[^\n]*?"text":"([\d.]+) ')
NUMBER = b'"seq":'
TIMED = 10
"""Number of watchers that record the arrival of each event. The others only count events."""
CHUNK_BYTES = 1024 * 1024


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
    await _read(url, f"GET {path}/stream HTTP/1.1\r\nAuthorization: Bearer {token}", watch, connected, b"event: end")


async def channel(url: str, name: str, watch: Watch, connected: asyncio.Event) -> None:
    """Follow a Redis channel until the message `end`."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=CHUNK_BYTES)
    login = f"AUTH {parts.username or 'default'} {parts.password}\r\n" if parts.password else ""
    writer.write(f"{login}SUBSCRIBE {name}\r\n".encode())
    await _follow(reader, writer, watch, connected, b"\r\nend\r\n", first=b"subscribe")


async def poll(url: str, path: str, token: str, watch: Watch, connected: asyncio.Event, pause_s: float) -> None:
    """Follow a run's log by requesting pages, pausing between requests."""
    import httpx

    connected.set()
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        while not watch.ended:
            answer = await http.get(path, params={"after": watch.last, "limit": 1000})
            watch.take(answer.content.partition(b'"last_seq"')[0])
            watch.ended = b'"done":true' in answer.content
            if b'"events":[]' in answer.content or watch.count == watch.last:
                await asyncio.sleep(pause_s)


async def _read(url: str, request: str, watch: Watch, connected: asyncio.Event, end: bytes) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=CHUNK_BYTES)
    writer.write(f"{request}\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n\r\n".encode())
    await _follow(reader, writer, watch, connected, end, first=b'"seq":1,')


async def _follow(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    watch: Watch,
    connected: asyncio.Event,
    end: bytes,
    *,
    first: bytes,
) -> None:
    rest = b""
    while data := await reader.read(CHUNK_BYTES):
        if first in data:
            connected.set()
        lines, newline, rest = (rest + data).rpartition(b"\n")
        watch.take(lines)
        if end in lines + newline:
            watch.ended = True
            break
    writer.close()


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
