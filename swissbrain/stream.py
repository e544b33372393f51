"""Following a log: each event once and in order, across lost connections, to the end of the run."""

import random
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus

import httpx
import msgspec
from httpx_sse import EventSource, ServerSentEvent, SSEError

from swissbrain.errors import ProtocolError, Unreachable
from swissbrain.models import Event, Gap
from swissbrain.transport import Transport, refuse, unreachable

SILENCE_S = 45.0
"""The API says something at least every 15 s; a connection that is silent for longer is dead."""
MAX_PAUSE_S = 5.0
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
        self._alive_at = time.monotonic()
        self._holes = 0
        self._lost = False
        self._ended = False

    def __iter__(self) -> Iterator[Event | Gap]:
        while not self._ended:
            try:
                yield from self._connection()
            except Unreachable as exc:
                self._on_loss(exc)
            else:
                self._pause_s = 0.0 if self._ended else self._retry_s
            if not self._ended:
                time.sleep(self._pause_s)

    def _connection(self) -> Iterator[Event | Gap]:
        transport = self._transport
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(self._last)}
        timeout = httpx.Timeout(transport.http.timeout.connect, read=SILENCE_S)
        try:
            with transport.http.stream("GET", self._path, headers=headers, timeout=timeout) as response:
                if response.status_code == HTTPStatus.NO_CONTENT:
                    self._ended = True
                    return
                if response.is_error:
                    response.read()
                    refuse(response, transport.base_url)
                self._on_life()
                for item in EventSource(response).iter_sse():
                    yield from self._take(item)
                    if self._ended:
                        return
        except (SSEError, msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ProtocolError(f"{transport.base_url} does not stream as this API does: {exc}") from exc
        except httpx.TransportError as exc:
            raise unreachable(transport.base_url, exc) from exc

    def _take(self, item: ServerSentEvent) -> Iterator[Event | Gap]:
        """What one event of the stream brings."""
        self._on_life()
        if item.retry is not None:
            self._retry_s = item.retry / 1000
        if item.event == "end":
            self._ended = True
        elif item.event == "gap":
            gap = msgspec.json.decode(item.data, type=Gap)
            if gap.last > self._last:
                self._last = gap.last
                yield gap
        elif item.event == "message" and item.data:
            event = msgspec.json.decode(item.data, type=Event)
            if event.seq > self._last + 1:
                raise self._hole(event.seq)
            if event.seq == self._last + 1:
                self._last, self._holes = event.seq, 0
                yield event

    def _hole(self, seq: int) -> Unreachable | ProtocolError:
        """Events are missing before seq; what to raise: the next connection brings them, or this API is broken."""
        self._holes += 1
        message = f"the stream lacks the events {self._last + 1} to {seq - 1}"
        return Unreachable(message) if self._holes < MAX_HOLES else ProtocolError(message)

    def _on_life(self) -> None:
        self._alive_at = time.monotonic()
        if self._lost:
            self._lost = False
            self._notify("connected again")

    def _on_loss(self, failure: Unreachable) -> None:
        if time.monotonic() - self._alive_at > self._patience_s:
            raise failure
        if not self._lost:
            self._lost = True
            self._pause_s = 0.1
            self._notify(f"{failure}; trying again")
        self._pause_s = min(MAX_PAUSE_S, 2 * self._pause_s) * random.uniform(0.5, 1.0)  # noqa: S311
