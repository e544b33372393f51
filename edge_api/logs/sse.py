"""One client's stream of server-sent events, from its first byte to its last."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress

from starlette.types import Receive, Scope, Send

from edge_api.http.response_models import Gap, StreamEnd
from edge_api.logs.frames import PING, RETRY, chunks
from edge_api.settings import ApiSettings
from infra.contract.log import Event
from infra.logging import log

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_PARTING_S = 1.0


class LogStreams:
    """The streams that are open, so that a shutdown can end them instead of waiting for clients that never leave.

    `wait_closed` returns once the subscriptions of streams that have ended are closed.
    """

    def __init__(self, wait_closed: Callable[[], Awaitable[None]]) -> None:
        self._wait_closed = wait_closed
        self._open: set[asyncio.Event] = set()
        self._ending = False

    def __len__(self) -> int:
        return len(self._open)

    async def hold(self, work: Coroutine[object, object, None], receive: Receive, hold_s: float | None) -> None:
        """Run `work` until it ends, the time is up, the client leaves, or the streams have to end.

        Neither a task nor a subscription is left: on Lambda the process is frozen as soon as the answer is out.
        """
        stop = asyncio.Event()
        self._open.add(stop)
        if self._ending:
            stop.set()
        tasks = [asyncio.create_task(each) for each in (work, _left(receive), _set(stop))]
        try:
            await asyncio.wait(tasks, timeout=hold_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(stop)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._wait_closed()

    def end(self) -> None:
        """End all streams, and those to come at once. Clients reconnect elsewhere with their last id."""
        self._ending = True
        for stop in self._open:
            stop.set()


class EventStream:
    """A response that sends items as they come; ASGI.

    Ends with the source, after the hold time, when the client leaves, when a piece could not be handed over within
    the stall time, or at shutdown. However it ends, the source is closed and no task is left.
    Not a StreamingResponse: that one leaves a source unclosed whose client goes away during a send.
    """

    def __init__(
        self,
        run_id: str,
        source: AsyncGenerator[Sequence[Event | Gap | StreamEnd], None],
        settings: ApiSettings,
        streams: LogStreams,
    ) -> None:
        self._run_id = run_id
        self._source = source
        self._settings = settings
        self._streams = streams
        self._sending = asyncio.Lock()
        self._said_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "HEAD":
            await self._source.aclose()
            await send({"type": "http.response.body"})
            return
        await self._streams.hold(self._send_all(send), receive, self._settings.stream_hold_s or None)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PARTING_S):
                await send({"type": "http.response.body"})

    async def _send_all(self, send: Send) -> None:
        async def piece(body: bytes) -> None:
            async with self._sending, asyncio.timeout(self._settings.stream_stall_s):
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self._said_at = time.monotonic()

        pinging = asyncio.create_task(self._ping(piece))
        try:
            async with aclosing(self._source) as source:
                await piece(RETRY)
                async for items in source:
                    for body in chunks(items):
                        await piece(body)
        except TimeoutError:
            log("stream.stalled", run_id=self._run_id)
        except Exception as exc:  # noqa: BLE001
            log("stream.failed", level=logging.ERROR, error=exc, run_id=self._run_id)
        finally:
            pinging.cancel()
            await asyncio.gather(pinging, return_exceptions=True)

    async def _ping(self, piece: Callable[[bytes], Awaitable[None]]) -> None:
        """Say something whenever nothing has been said for a while. Whether the client takes it is seen elsewhere."""
        ping_s = self._settings.stream_ping_s
        while True:
            await asyncio.sleep(self._said_at + ping_s - time.monotonic())
            if time.monotonic() >= self._said_at + ping_s:
                with suppress(TimeoutError):
                    await piece(PING)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _set(stop: asyncio.Event) -> None:
    await stop.wait()
