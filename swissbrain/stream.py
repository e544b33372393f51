"""Following a log: each event once and in order, across lost connections, to the end of the run."""

import random
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

import httpx
import msgspec
from httpx_sse import EventSource, ServerSentEvent, SSEError

from swissbrain.errors import ProtocolError, Unreachable
from swissbrain.models import End, Event, Gap
from swissbrain.transport import Busy, Transport, failed, refuse, unsendable

SILENCE_S = 45.0
"""The API says something at least every 15 s; a connection that is silent for longer is dead."""
MIN_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0
MAX_HOLES = 3
"""So often in a row may events be missing."""


class LogStream:
    """Iterate over it once. Raises ApiError; Unreachable if the API has been away for `patience_s` seconds.

    The connection is made anew, from the last event that came, whenever it ends without the log having ended.
    `notify` takes a line when it is lost, and when it is there again.
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
                    refuse(response, transport.base_url)
                self._on_life()
                if response.status_code == HTTPStatus.NO_CONTENT:
                    self._ended = True
                    return
                for item in EventSource(response).iter_sse():
                    yield from self._take(item)
                    if self._ended:
                        return
        except (SSEError, msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ProtocolError(f"{transport.base_url} does not stream as this API does: {exc}") from exc
        except httpx.InvalidURL as exc:
            raise unsendable(exc) from exc
        except httpx.RequestError as exc:
            raise failed(transport.base_url, exc) from exc

    def _take(self, item: ServerSentEvent) -> Iterator[Event | Gap]:
        """What one event of the stream brings."""
        if item.retry is not None:
            self._retry_s = min(max(item.retry, 1000 * MIN_PAUSE_S), 1000 * MAX_PAUSE_S) / 1000
        if item.event == "end":
            self._check_reaches(msgspec.json.decode(item.data, type=End).last_seq + 1)
            self._ended = True
        elif item.event == "gap":
            gap = msgspec.json.decode(item.data, type=Gap)
            self._check_reaches(gap.first)
            if gap.last > self._last:
                self._on_progress(gap.last)
                yield gap
        elif item.event == "message" and item.data:
            event = msgspec.json.decode(item.data, type=Event)
            self._check_reaches(event.seq)
            if event.seq > self._last:
                self._on_progress(event.seq)
                yield event

    def _check_reaches(self, seq: int) -> None:
        """Raise if events are missing before seq: the next connection brings them, or else this API is broken."""
        if seq <= self._last + 1:
            return
        self._holes += 1
        message = f"the stream lacks the events {self._last + 1} to {seq - 1}"
        raise Unreachable(message) if self._holes < MAX_HOLES else ProtocolError(message)

    def _on_progress(self, seq: int) -> None:
        self._last, self._holes, self._pause_s = seq, 0, 0.0

    def _on_life(self) -> None:
        if self._lost_at is not None:
            self._lost_at = None
            self._notify("connected again")

    def _on_loss(self, failure: Unreachable) -> float:
        """How long to wait before the next try, in seconds."""
        now = time.monotonic()
        first = self._lost_at is None
        self._lost_at = now if self._lost_at is None else self._lost_at
        if now - self._lost_at >= self._patience_s:
            raise failure
        if first:
            self._notify(f"{failure}; trying again")
        self._pause_s = min(max(2 * self._pause_s, MIN_PAUSE_S), MAX_PAUSE_S)
        asked_s = failure.retry_after_s if isinstance(failure, Busy) else 0.0
        return max(asked_s, self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311
