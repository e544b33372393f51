"""Live log of a run: each event once and in order, across lost connections, until the run has ended."""

import random
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

import httpx
import msgspec
from httpx_sse import EventSource, ServerSentEvent, SSEError

from swissbrain.errors import ProtocolError, Unreachable
from swissbrain.models import End, Event, Gap
from swissbrain.transport import Busy, Transport, connection_error, raise_for_error, raise_for_redirect, unsendable

SILENCE_S = 45.0
"""Read timeout. The API sends a ping every 15 s, so a connection that is silent for longer is dead."""
MIN_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0
MAX_HOLES = 3
"""Number of connections in a row that may lack the next event."""


class LogStream:
    """Iterator over a live log, for one use. Raises ApiError; Unreachable after `patience_s` seconds without the API.

    A connection that ends before the log has ended is re-established from the last event received. `notify` receives
    a line when the connection is lost, and when it is restored.
    """

    def __init__(
        self, transport: Transport, path: str, after: int, *, patience_s: float, notify: Callable[[str], None]
    ) -> None:
        self._transport = transport
        self._path = path
        self._last = after
        self._patience_s = patience_s
        self._notify = notify
        self._pause_s = 0.0
        self._retry_s = 1.0
        self._lost_at: float | None = None
        self._holes = 0
        self._ended = False

    def __iter__(self) -> Iterator[Event | Gap]:
        while not self._ended:
            try:
                yield from self._connection()
                # The API ends a stream after a while, on purpose: no failure, no backoff.
                pause_s = self._retry_s
            except Unreachable as exc:
                pause_s = self._on_loss(exc)
            if not self._ended:
                time.sleep(pause_s)

    def _connection(self) -> Iterator[Event | Gap]:
        transport = self._transport
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(self._last)}
        timeout = httpx.Timeout(transport.http.timeout.connect, read=SILENCE_S)
        try:
            with transport.http.stream("GET", self._path, headers=headers, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                    raise_for_error(response, transport.base_url)
                raise_for_redirect(response, transport.base_url)
                self._on_connected()
                if response.status_code == HTTPStatus.NO_CONTENT:
                    # The log has ended and the client has all of it.
                    self._ended = True
                    return
                for item in EventSource(response).iter_sse():
                    yield from self._receive(item)
                    if self._ended:
                        return
        except (SSEError, msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ProtocolError(f"{transport.base_url} does not stream as this API does: {exc}") from exc
        except httpx.InvalidURL as exc:
            raise unsendable(exc) from exc
        except httpx.RequestError as exc:
            raise connection_error(transport.base_url, exc) from exc

    def _receive(self, item: ServerSentEvent) -> Iterator[Event | Gap]:
        """Yield the log event or gap in an event of the stream, unless it was received before."""
        if item.retry is not None:
            self._retry_s = min(max(item.retry, 1000 * MIN_PAUSE_S), 1000 * MAX_PAUSE_S) / 1000
        # Events of other types are ignored: a later release may add some.
        if item.event == "end":
            self._check_contiguous(msgspec.json.decode(item.data, type=End).last_seq + 1)
            self._ended = True
        elif item.event == "gap":
            gap = msgspec.json.decode(item.data, type=Gap)
            self._check_contiguous(gap.first)
            if gap.last > self._last:
                self._advance(gap.last)
                yield gap
        elif item.event == "message" and item.data:
            event = msgspec.json.decode(item.data, type=Event)
            self._check_contiguous(event.seq)
            if event.seq > self._last:
                self._advance(event.seq)
                yield event

    def _check_contiguous(self, seq: int) -> None:
        """Raise Unreachable if events before `seq` are missing; ProtocolError if that has happened MAX_HOLES times."""
        if seq <= self._last + 1:
            return
        # A proxy may have dropped data: the next connection starts after the last event received and fills the hole.
        self._holes += 1
        message = f"the stream lacks the events {self._last + 1} to {seq - 1}"
        raise Unreachable(message) if self._holes < MAX_HOLES else ProtocolError(message)

    def _advance(self, seq: int) -> None:
        self._last, self._holes, self._pause_s = seq, 0, 0.0

    def _on_connected(self) -> None:
        if self._lost_at is not None:
            self._lost_at = None
            self._notify("connected again")

    def _on_loss(self, failure: Unreachable) -> float:
        """Return the pause before the next try in seconds. Raises the failure when the patience is exhausted."""
        now = time.monotonic()
        first = self._lost_at is None
        self._lost_at = now if self._lost_at is None else self._lost_at
        if now - self._lost_at >= self._patience_s:
            raise failure
        if first:
            self._notify(f"{failure}; trying again")
        # Doubled until an event arrives, not until a connection succeeds: an API that accepts connections and breaks
        # them without an event must not be called at full speed.
        self._pause_s = min(max(2 * self._pause_s, MIN_PAUSE_S), MAX_PAUSE_S)
        retry_after_s = failure.retry_after_s if isinstance(failure, Busy) else 0.0
        # Random, so that the followers of a restarted API do not all come back at the same moment.
        return max(retry_after_s, self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311
