# Generated from swissbrain/_async by `python -m scripts.unasync`; change it there.
"""Methods of the client for logs."""

from collections.abc import Generator, Sequence

from swissbrain import endpoints
from swissbrain._sync.stream import follow
from swissbrain._sync.transport import Transport
from swissbrain.callbacks import Notify
from swissbrain.log_position import LogPosition
from swissbrain.models import Event, Gap, StreamToken


class LogMethods:
    """Methods for the log of a run.

    Filters: `step` (index from 0), `stream` (`stdout` or `stderr`) and `event_type` select events;
    each is one value or several, and all given filters must apply. Without filters, a Gap replaces events that the API
    has deleted.
    """

    _api: Transport
    _patience_s: float
    _notify: Notify

    def logs(
        self,
        run_id: str,
        *,
        tail: int = 100,
        before: int | None = None,
        step: int | Sequence[int] | None = None,
        stream: str | Sequence[str] | None = None,
        event_type: str | Sequence[str] | None = None,
    ) -> list[Event | Gap]:
        """Return the last `tail` events that the filters select, oldest first; with `before`, the last before that seq.

        The part before it begins at the seq of its first event: `logs(run_id, before=events[0].seq)`.
        """
        filters = endpoints.log_filters(step, stream, event_type)
        items: list[Event | Gap] = []
        while tail > 0:
            page = self._api.ask(endpoints.read_log_backwards(run_id, tail, before, filters))
            items[:0] = [*([page.gap] if page.gap else []), *page.events]
            tail -= len(page.events)
            before = page.prev_before
            if before is None:
                break
        return items

    def logged(
        self,
        run_id: str,
        *,
        after: int = 0,
        step: int | Sequence[int] | None = None,
        stream: str | Sequence[str] | None = None,
        event_type: str | Sequence[str] | None = None,
    ) -> Generator[Event | Gap, None, None]:
        """Yield the events logged so far, from seq `after + 1` on."""
        filters = endpoints.log_filters(step, stream, event_type)
        while True:
            page = self._api.ask(endpoints.read_log(run_id, after, filters))
            if page.gap:
                yield page.gap
            for event in page.events:
                yield event
            # A page that does not move on, of a run that has not ended: the log has no more events yet.
            if page.done or page.next_after <= after:
                return
            after = page.next_after

    def events(
        self,
        run_id: str,
        *,
        after: int = 0,
        tail: int | None = None,
        step: int | Sequence[int] | None = None,
        stream: str | Sequence[str] | None = None,
        event_type: str | Sequence[str] | None = None,
    ) -> Generator[Event | Gap, None, None]:
        """Yield the events from seq `after + 1` on, live until the run has ended: each event once and in order.

        With `tail` (1 to 1000), begin with the last `tail` events instead. Lost connections are re-established.
        """
        position = LogPosition(
            after,
            tail,
            endpoints.log_filters(step, stream, event_type),
            patience_s=self._patience_s,
            notify=self._notify,
        )
        return follow(self._api, endpoints.log_stream_path(run_id), position)

    def stream_token(self, run_id: str, expires_s: int | None = None) -> StreamToken:
        """Return a token with which a browser can read the log of this run only, for `expires_s` seconds (300)."""
        return self._api.ask(endpoints.create_stream_token(run_id, expires_s))
