"""Archive of logs: each segment is an object of gzip NDJSON below the run's prefix, one event per line."""

import asyncio
import gzip
import zlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial

import msgspec

from infra.contract.errors import FileMissing
from infra.contract.log import Event, Segment
from infra.contract.runs import RunHead
from infra.workspace.bucket import Bucket
from infra.workspace.object_keys import run_prefix
from infra.workspace.threads import Threads

PIECE_BYTES = 256 * 1024
"""Bytes that are decompressed at a time, so that a reader's memory does not grow with the length of the log."""
CACHE_BYTES = 32 * 1024 * 1024

_GZIP = 16 + zlib.MAX_WBITS
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


class LogSegments:
    """Implements the port `LogArchive`."""

    def __init__(self, bucket: Bucket, threads: Threads) -> None:
        self._bucket = bucket
        self._threads = threads
        self._cache = ObjectCache(self._fetch, CACHE_BYTES)

    async def store(self, run: RunHead, segment: Segment, events: Sequence[Event]) -> None:
        """Store the events of a segment. Repeating the call writes identical bytes."""
        key = _key(run, segment)

        def put() -> None:
            packed = gzip.compress(_encoder.encode_lines(events), mtime=0)  # without a time stamp: identical bytes
            self._bucket.put(key, packed, len(packed))

        await self._threads.call(lambda _: put())

    async def discard(self, run: RunHead, segment: Segment) -> None:
        """Delete a segment that no record names."""
        await self._threads.call(lambda _: self._bucket.delete(_key(run, segment)))

    async def read(self, run: RunHead, segment: Segment, *, after: int) -> AsyncGenerator[list[Event], None]:
        """Yield the events of a segment from `after + 1` on. Raises FileMissing, for a damaged segment too."""
        packed, rest, seq = await self._cache.get(_key(run, segment)), b"", segment.first - 1
        inflater = zlib.decompressobj(_GZIP)
        try:
            while piece := inflater.decompress(packed, PIECE_BYTES):
                packed = inflater.unconsumed_tail
                lines, end, rest = (rest + piece).rpartition(b"\n")
                seq += lines.count(b"\n") + len(end)
                if seq > after:
                    yield [event for event in _decoder.decode_lines(lines) if event.seq > after]
                await asyncio.sleep(0)  # let other tasks of this event loop run
        except (zlib.error, msgspec.DecodeError) as exc:
            raise FileMissing(f"the archived events {seq + 1} to {segment.last} are damaged") from exc

    async def _fetch(self, key: str) -> bytes:
        return await self._threads.call(lambda _: self._bucket.get(key, None))


class ObjectCache:
    """Cache of recently fetched objects. Concurrent readers of one object share a single fetch.

    Holds up to `limit_bytes`; the least recently used object is evicted first.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]], limit_bytes: int) -> None:
        self._fetch = fetch
        self._limit_bytes = limit_bytes
        self._size = 0
        self._tasks: OrderedDict[str, asyncio.Task[bytes]] = OrderedDict()

    async def get(self, key: str) -> bytes:
        """Return the object. Raises the error of `fetch`; errors are not cached."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(self._call(key))
            task.add_done_callback(partial(self._fetched, key))
        self._tasks.move_to_end(key)
        return await asyncio.shield(task)  # a cancelled reader must not cancel the fetch of others

    async def _call(self, key: str) -> bytes:
        return await self._fetch(key)

    def _fetched(self, key: str, task: "asyncio.Task[bytes]") -> None:
        if task.cancelled() or task.exception():
            del self._tasks[key]
            return
        self._size += len(task.result())
        for old in [key for key, task in self._tasks.items() if task.done()]:
            if self._size <= self._limit_bytes:
                break
            self._size -= len(self._tasks.pop(old).result())


def _key(run: RunHead, segment: Segment) -> str:
    return run_prefix(run.user, run.id) + segment.object_name(run.created_ms)
