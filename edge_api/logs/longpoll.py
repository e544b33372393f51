"""A log's events as a whole answer, for hosts that do not stream: waits for the first, gives what there is, and ends.

The events, their ids and the end are those of a stream, so its clients need not know: an `EventSource` comes back with
the last id after the time that `retry` says.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from edge_api.http.response_models import Gap, StreamEnd
from edge_api.logs.frames import PING, RETRY, frame
from edge_api.logs.reader import ENOUGH_BYTES
from edge_api.logs.sse import HEADERS, LogStreams
from edge_api.settings import ApiSettings
from infra.contract.log import TERMINAL_EVENT, Event, RunLog
from infra.contract.states import TERMINAL
from infra.logging import log

RETRY_SOON = b"retry: 100\n"
MARGIN_S = 2.0
"""What is left of a Lambda invocation for the answer."""


class LongPoll:
    """A response with the events that are there, or else the next that come; ASGI.

    Answers as soon as it has something and all that the run's record knew of, and at the latest after the waiting
    time, with a comment instead of events. A log that has ended is answered with its end. Raises what the source
    raises if it has nothing else to say; with events the client will ask again.
    """

    def __init__(
        self,
        run: RunLog,
        source: AsyncGenerator[Sequence[Event | Gap | StreamEnd], None],
        settings: ApiSettings,
        streams: LogStreams,
    ) -> None:
        self._run = run
        self._source = source
        self._settings = settings
        self._streams = streams
        self._body = bytearray()
        self._failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["method"] == "HEAD":
            await self._source.aclose()
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await send({"type": "http.response.body"})
            return
        await self._streams.hold(self._collect(), receive, self._wait_s(scope))
        if self._failure is not None:
            raise self._failure
        body = RETRY_SOON + self._body if self._body else RETRY + PING
        headers = [*HEADERS, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _wait_s(self, scope: Scope) -> float:
        """How long may be waited. On Lambda, Mangum hands on the context of the invocation, which knows its end."""
        context = scope.get("aws.context")
        if context is None:
            return self._settings.longpoll_wait_s
        left_s = context.get_remaining_time_in_millis() / 1000
        return float(min(self._settings.longpoll_wait_s, max(left_s - MARGIN_S, left_s / 2)))

    async def _collect(self) -> None:
        try:
            async with aclosing(self._source) as source:
                async for items in source:
                    if self._take(items):
                        return
        except Exception as exc:  # noqa: BLE001
            if not self._body:
                self._failure = exc
            else:
                log("poll.failed", level=logging.ERROR, error=exc, run_id=self._run.id)

    def _take(self, items: Sequence[Event | Gap | StreamEnd]) -> bool:
        """Add the items, and say whether that will do."""
        for item in items:
            self._body += frame(item)
            if len(self._body) >= ENOUGH_BYTES and not self._may_be_last(item):
                return True
        last = items[-1]
        return isinstance(last, StreamEnd) or (_seq(last) >= self._run.seq and not self._may_be_last(last))

    def _may_be_last(self, item: Event | Gap | StreamEnd) -> bool:
        """Whether the log may end with this item, which then is not parted from the end: a client that has all but
        the end is told that there is nothing, and would never see it.
        """
        if isinstance(item, StreamEnd):
            return False
        is_terminal = isinstance(item, Event) and item.type == TERMINAL_EVENT
        return is_terminal or (self._run.status in TERMINAL and _seq(item) >= self._run.seq)


def _seq(item: Event | Gap) -> int:
    return item.last if isinstance(item, Gap) else item.seq
