"""Streams of server-sent events: the response of one client, and the set of all that are open."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress

from starlette.types import Receive, Scope, Send

from edge_api.logs.frames import PING, RETRY, chunks
from edge_api.logs.items import ItemSource
from edge_api.settings import ApiSettings
from infra.asgi import wait_for_disconnect
from infra.logging import log

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    # Proxies of the nginx family would otherwise buffer the stream.
    (b"x-accel-buffering", b"no"),
]
_LAST_CHUNK_S = 1.0


class LogStreams:
    """Set of open log streams. A shutdown ends them, instead of waiting for clients that never leave.

    `wait_closed` returns once the subscriptions of ended streams are closed.
    """

    def __init__(self, wait_closed: Callable[[], Awaitable[None]]) -> None:
        self._wait_closed = wait_closed
        self._open: set[asyncio.Event] = set()
        self._ending = False

    def __len__(self) -> int:
        return len(self._open)

    async def hold(self, work: Coroutine[object, object, None], receive: Receive, hold_s: float | None) -> None:
        """Run `work` until it returns, `hold_s` is over, the client disconnects, or `end` is called.

        Leaves neither a task nor a subscription: Lambda freezes the process as soon as the response is sent.
        """
        ending = asyncio.Event()
        self._open.add(ending)
        if self._ending:
            ending.set()
        tasks = [asyncio.create_task(each) for each in (work, wait_for_disconnect(receive), _is_set(ending))]
        try:
            await asyncio.wait(tasks, timeout=hold_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(ending)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._wait_closed()

    def end(self) -> None:
        """End every open stream, and every later one as soon as it opens. Clients reconnect with their last id."""
        self._ending = True
        for ending in self._open:
            ending.set()


class EventStream:
    """ASGI response that sends items as they come.

    Ends when the source ends, after the hold time, when the client disconnects, when the client does not take a chunk
    within the stall time, or at shutdown. In each case the source is closed and no task remains.
    """

    # Not a StreamingResponse of Starlette: it does not close its source if the client disconnects during a send.

    def __init__(self, run_id: str, source: ItemSource, settings: ApiSettings, streams: LogStreams) -> None:
        self._run_id = run_id
        self._source = source
        self._settings = settings
        self._streams = streams
        self._sending = asyncio.Lock()
        self._sent_at = time.monotonic()
        self._waits_since: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request."""
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "HEAD":
            await self._source.aclose()
            await send({"type": "http.response.body"})
            return
        await self._streams.hold(self._send_all(send), receive, self._settings.stream_hold_s or None)
        # Completes the chunked body. A client that takes nothing must not keep the request open.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_CHUNK_S):
                await send({"type": "http.response.body"})

    async def _send_all(self, send: Send) -> None:
        async def send_chunk(body: bytes) -> None:
            async with self._sending:
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self._sent_at = time.monotonic()

        try:
            async with aclosing(self._source) as source, asyncio.timeout(None) as deadline:
                watching = asyncio.create_task(self._watch(send_chunk, deadline))
                try:
                    await send_chunk(RETRY)
                    while items := await source.next_batch():
                        for body in chunks(items):
                            self._waits_since = time.monotonic()
                            await send_chunk(body)
                            self._waits_since = None
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        except TimeoutError:
            log("stream.stalled", run_id=self._run_id)
        except Exception as exc:  # noqa: BLE001
            log("stream.failed", level=logging.ERROR, error=exc, run_id=self._run_id)

    async def _watch(self, send_chunk: Callable[[bytes], Awaitable[None]], deadline: asyncio.Timeout) -> None:
        """Expire `deadline` if a chunk of events is not taken within the stall time, or up to a quarter more.

        Sends a comment whenever nothing has been sent for `stream_ping_s`, so that proxies keep the connection.
        """
        # A timeout for each chunk would be exact, and a tenth of the cost of a stream.
        ping_s, stall_s = self._settings.stream_ping_s, self._settings.stream_stall_s
        while True:
            now, since = time.monotonic(), self._waits_since
            if since is not None and now >= since + stall_s:
                deadline.reschedule(asyncio.get_running_loop().time())
                return
            if since is None and now >= self._sent_at + ping_s:
                # The next chunk of events notices a stalled client; a ping alone does not end the stream.
                with suppress(TimeoutError):
                    async with asyncio.timeout(stall_s):
                        await send_chunk(PING)
                continue
            due = self._sent_at + ping_s if since is None else since + stall_s
            await asyncio.sleep(min(due - now, stall_s / 4))


async def _is_set(event: asyncio.Event) -> None:
    await event.wait()
