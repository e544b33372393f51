"""Position of a reader in a live log: which events it has, where the next connection begins, how long to pause."""

import random
from collections.abc import Mapping
from http import HTTPStatus
from time import monotonic

import httpx
from httpx_sse import ServerSentEvent

from swissbrain.callbacks import Notify
from swissbrain.decoding import from_json
from swissbrain.errors import ProtocolError, Unreachable
from swissbrain.messages import Busy, raise_for_redirect
from swissbrain.models import End, Event, Gap, Skipped

SILENCE_S = 45.0
"""Read timeout. The API sends a ping every 15 s, so a connection that is silent for longer is dead."""
MIN_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0
MAX_HOLES = 3
"""Number of connections in a row that may lack the next event."""


class LogPosition:
    """Position in a live log that is read over several connections.

    `after` is the seq of the last event that the reader has; with `tail`, the reader begins with the last `tail` events
    instead. `filters` select events. `notify` receives a line when the connection is lost, and when it is restored.
    """

    def __init__(
        self,
        after: int,
        tail: int | None,
        filters: Mapping[str, str],
        *,
        patience_s: float,
        notify: Notify,
    ) -> None:
        self.ended = False
        self.retry_s = 1.0
        """Pause after a connection that the API has ended on purpose, in seconds."""
        self._last: int | None = after if tail is None else None
        self._tail = tail
        self._filters = filters
        self._patience_s = patience_s
        self._notify = notify
        self._pause_s = 0.0
        self._lost_at: float | None = None
        self._holes = 0

    def headers(self) -> dict[str, str]:
        """Return the headers of the next connection."""
        accept = {"Accept": "text/event-stream"}
        return accept if self._last is None else {**accept, "Last-Event-ID": str(self._last)}

    def params(self) -> dict[str, str]:
        """Return the query of the next connection."""
        return {**self._filters, **({"tail": str(self._tail)} if self._last is None else {})}

    def connected(self, response: httpx.Response, base_url: str) -> bool:
        """Note a response that is no error; return True if events follow. Raises ProtocolError for a redirect."""
        raise_for_redirect(response, base_url)
        if self._lost_at is not None:
            self._lost_at = None
            self._notify("connected again")
        # The log has ended and the client has all of it.
        self.ended = response.status_code == HTTPStatus.NO_CONTENT
        return not self.ended

    def receive(self, item: ServerSentEvent) -> Event | Gap | None:
        """Return the log event or gap in an event of the stream, unless it was received before."""
        if item.retry is not None:
            self.retry_s = min(max(item.retry, 1000 * MIN_PAUSE_S), 1000 * MAX_PAUSE_S) / 1000
        # Events of other types are ignored: a later release may add some.
        if item.event == "end":
            self._check_contiguous(from_json(item.data, End).last_seq + 1)
            self.ended = True
        elif item.event == "gap":
            gap = from_json(item.data, Gap)
            self._check_contiguous(gap.first)
            return gap if self._advance(gap.last) else None
        elif item.event == "message" and item.data:
            event = from_json(item.data, Event)
            self._check_contiguous(event.seq)
            return event if self._advance(event.seq) else None
        elif item.event == "skipped":
            # The filters excluded these events: the next connection must not begin before them.
            self._advance(from_json(item.data, Skipped).last)
        return None

    def _check_contiguous(self, seq: int) -> None:
        """Raise Unreachable if events before `seq` are missing; ProtocolError if that has happened MAX_HOLES times."""
        # The first event of a tail may have any number, and so may the next event that a filter selects.
        if self._last is None or self._filters or seq <= self._last + 1:
            return
        # A proxy may have dropped data: the next connection starts after the last event received and fills the hole.
        self._holes += 1
        message = f"the stream lacks the events {self._last + 1} to {seq - 1}"
        raise Unreachable(message) if self._holes < MAX_HOLES else ProtocolError(message)

    def _advance(self, seq: int) -> bool:
        """Move to an event; return False if the reader is at or after it already."""
        if self._last is not None and seq <= self._last:
            return False
        self._last, self._holes, self._pause_s = seq, 0, 0.0
        return True

    def lost(self, failure: Unreachable) -> float:
        """Return the pause before the next try in seconds. Raises the failure when the patience is exhausted."""
        now = monotonic()
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
