"""Position of one reader in a log."""

from collections.abc import Sequence

from edge_api.http.response_models import Gap
from infra.contract.log import Event, RunLog, Segment
from infra.contract.states import TERMINAL


class Position:
    """Position of one reader: every event up to seq `last` has been given out, in order.

    `run` is the newest known record of the run. `seen` is the highest seq observed in the log; it is lower than `last`
    while `last` is only the client's claim.
    """

    def __init__(self, run: RunLog, last: int) -> None:
        self.run = run
        self.last = last
        self.seen = 0

    def take(self, events: Sequence[Event]) -> list[Event]:
        """Advance over the events that follow without a hole, and return them in order.

        The events may be in any order and may repeat events that have been given out.
        """
        taken = []
        for event in sorted(events, key=_seq):
            if event.seq == self.last + 1:
                taken.append(event)
                self.last = self.seen = event.seq
        return taken

    def take_all(self, events: Sequence[Event]) -> bool:
        """Advance over all events if the first one follows. The events must be in order and without a hole."""
        if not events or events[0].seq != self.last + 1:
            return False
        self.last = self.seen = events[-1].seq
        return True

    def first_after_hole(self, events: Sequence[Event]) -> int | None:
        """Return the lowest new sequence number among the events, if events before it are missing; otherwise None."""
        first = min((event.seq for event in events if event.seq > self.last), default=None)
        return None if first == self.last + 1 else first

    def skip(self, to: int) -> Gap:
        """Advance to just before sequence number `to`, and return the gap."""
        gap = Gap(first=self.last + 1, last=to - 1)
        self.last = self.seen = to - 1
        return gap

    def segment(self) -> Segment | None:
        """Return the archived segment with the next event; None if the record names no such segment."""
        return next((segment for segment in self.run.segments if segment.last > self.last), None)

    def is_end(self) -> bool:
        """Return whether the run has ended and the client has all of its events, or claims to have more."""
        # `seen` beyond the record: the record is outdated, because the run has been retried since it was read.
        return self.run.status in TERMINAL and self.seen <= self.run.seq <= self.last

    def is_short(self) -> bool:
        """Return whether the run has ended and its log has events after this position."""
        return self.run.status in TERMINAL and self.run.seq > self.last


def _seq(event: Event) -> int:
    return event.seq
