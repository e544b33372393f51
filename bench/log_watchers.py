"""Many watchers of one log in this process, cheap enough to be more than the servers can feed."""

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
"""So many of the watchers note when each event came; the others only that it came."""
CHUNK_BYTES = 1024 * 1024


@dataclass
class Watch:
    """What one watcher saw: how many events, the last one, whether any was missing, doubled or out of order."""

    timed: bool
    seen: int = 0
    last: int = 0
    broken: bool = False
    ended: bool = False
    times: list[tuple[int, float, float]] = field(default_factory=list)
    """Seq, when it was made, when it came; in s since the epoch."""

    def take(self, text: bytes) -> None:
        """Whole lines."""
        now = time.time()
        if self.timed:
            self.times += [(int(seq), float(made), now) for seq, made in EVENT.findall(text)]
        if came := text.count(NUMBER):
            self.seen += came
            self.last = int(text[text.rindex(NUMBER) + len(NUMBER) :].partition(b",")[0])
            self.broken |= self.last != self.seen


async def stream(url: str, path: str, token: str, watch: Watch, connected: asyncio.Event) -> None:
    """Follow a run's log as an SSE client does, to its end; once, without coming back."""
    await _read(url, f"GET {path}/stream HTTP/1.1\r\nAuthorization: Bearer {token}", watch, connected, b"event: end")


async def channel(url: str, name: str, watch: Watch, connected: asyncio.Event) -> None:
    """Follow a plain Redis channel, to its message `end`."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=CHUNK_BYTES)
    login = f"AUTH {parts.username or 'default'} {parts.password}\r\n" if parts.password else ""
    writer.write(f"{login}SUBSCRIBE {name}\r\n".encode())
    await _follow(reader, writer, watch, connected, b"\r\nend\r\n", first=b"subscribe")


async def poll(url: str, path: str, token: str, watch: Watch, connected: asyncio.Event, pause_s: float) -> None:
    """What streams replace: ask for the next page, wait, ask again."""
    import httpx

    connected.set()
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        while not watch.ended:
            answer = await http.get(path, params={"after": watch.last, "limit": 1000})
            watch.take(answer.content.partition(b'"last_seq"')[0])
            watch.ended = b'"done":true' in answer.content
            if b'"events":[]' in answer.content or watch.seen == watch.last:
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
    """Seconds until the event had come, from when it was made, and from when its batch was handed to Redis."""
    lasts = [last for last, _ in sent]
    from_made, from_sent = [], []
    for watch in watches:
        for seq, made, came in watch.times:
            from_made.append(came - made)
            if (place := bisect_left(lasts, seq)) < len(sent):
                from_sent.append(came - sent[place][1])
    return from_made, from_sent
