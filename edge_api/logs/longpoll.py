"""Long poll: a log's next events as one complete response, for hosts that do not stream.

Events, ids and end have the same form as in a stream, so clients need not distinguish: an `EventSource` reconnects
with the last id after the time given by `retry`.
"""

import logging
from collections.abc import Sequence
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from edge_api.http.response_models import Gap, Skipped, StreamEnd
from edge_api.logs.frames import PING, RETRY, frame
from edge_api.logs.items import Item, ItemSource, is_terminal_event
from edge_api.logs.limits import ENOUGH_BYTES
from edge_api.logs.sse import HEADERS, LogStreams
from edge_api.settings import ApiSettings
from infra.contract.log import Event, RunLog
from infra.contract.states import TERMINAL
from infra.logging import log

RETRY_SOON = b"retry: 100\n"
MARGIN_S = 2.0
"""Time before the end of a Lambda invocation that is kept for sending the response."""


class LongPoll:
    """ASGI response with the stored events, or, if there are none, with the next events.

    Responds once it has events and has reached the last event that the run's record named; after the waiting time at
    the latest, with a comment if there were no events. The log of an ended run is returned up to its end.

    Raises what the source raises, unless events were read before: then the client asks again after those.
    """

    def __init__(self, run: RunLog, source: ItemSource, settings: ApiSettings, streams: LogStreams) -> None:
        self._run = run
        self._source = source
        self._settings = settings
        self._streams = streams
        self._body = bytearray()
        self._skipped: Skipped | None = None
        self._failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request."""
        if scope["method"] == "HEAD":
            await self._source.aclose()
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await send({"type": "http.response.body"})
            return
        hold_s = within_invocation(scope, self._settings.longpoll_wait_s)
        await self._streams.hold(self._collect(), receive, hold_s)
        if self._failure is not None:
            raise self._failure
        if self._skipped and not self._may_be_last(self._skipped):
            self._body += frame(self._skipped)
        body = RETRY_SOON + self._body if self._body else RETRY + PING
        headers = [*HEADERS, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _collect(self) -> None:
        try:
            async with aclosing(self._source) as source:
                while items := await source.next_batch():
                    if self._add(items):
                        return
        except Exception as exc:  # noqa: BLE001
            if not self._body and not self._skipped:
                self._failure = exc
            else:
                log("poll.failed", level=logging.ERROR, error=exc, run_id=self._run.id)

    def _add(self, items: Sequence[Item]) -> bool:
        """Add the items to the body. Return whether the response is complete."""
        for item in items:
            # Only the last one counts, and it alone is no reason to respond: the client would ask again immediately.
            self._skipped = item if isinstance(item, Skipped) else None
            if self._skipped:
                continue
            self._body += frame(item)
            if len(self._body) >= ENOUGH_BYTES and not self._may_be_last(item):
                return True
        last = items[-1]
        if isinstance(last, StreamEnd):
            return True
        return bool(self._body) and _seq(last) >= self._run.seq and not self._may_be_last(last)

    def _may_be_last(self, item: Item) -> bool:
        """Return whether the item may be the last event of the log.

        The last event is sent together with `end`: a client that reconnects with its id would get 204 and never see
        `end`.
        """
        if isinstance(item, StreamEnd):
            return False
        return is_terminal_event(item) or (self._run.status in TERMINAL and _seq(item) >= self._run.seq)


def within_invocation(scope: Scope, wait_s: float) -> float:
    """Return the waiting time; on Lambda it ends before the invocation, whose context Mangum passes on."""
    context = scope.get("aws.context")
    if context is None:
        return wait_s
    remaining_s = context.get_remaining_time_in_millis() / 1000
    return float(min(wait_s, max(remaining_s - MARGIN_S, remaining_s / 2)))


def _seq(item: Event | Gap | Skipped) -> int:
    return item.seq if isinstance(item, Event) else item.last
