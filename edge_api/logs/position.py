"""How far one reader has come in a log."""

from collections.abc import Sequence

from edge_api.http.response_models import Gap
from infra.contract.log import Event, RunLog, Segment
from infra.contract.states import TERMINAL


class Place:
    """Everything up to seq `last` has been given out, in order; `run` is what is known of the run by now.

    `heard` is what the log has been seen to reach: less than `last` as long as that is just what the client says.
    """

    def __init__(self, run: RunLog, last: int) -> None:
        self.run = run
        self.last = last
        self.heard = 0

    def take(self, events: Sequence[Event]) -> list[Event]:
        """Those that follow without a hole, each once and in order, whatever order and repeats they come in."""
        taken = []
        for event in sorted(events, key=_seq):
            if event.seq == self.last + 1:
                taken.append(event)
                self.last = self.heard = event.seq
        return taken

    def take_all(self, events: Sequence[Event]) -> bool:
        """Take events that are known to stand in order without a hole, if they follow: all of them, or none."""
        if not events or events[0].seq != self.last + 1:
            return False
        self.last = self.heard = events[-1].seq
        return True

    def beyond(self, events: Sequence[Event]) -> int | None:
        """The first sequence number after a hole, if there is one among the events."""
        return min((event.seq for event in events if event.seq > self.last), default=None)

    def skip(self, to: int) -> Gap:
        """Give up on all before sequence number `to`."""
        gap = Gap(first=self.last + 1, last=to - 1)
        self.last = self.heard = to - 1
        return gap

    def segment(self) -> Segment | None:
        """The segment of the archive that has the next event; None if it is not archived, for all that is known."""
        return next((segment for segment in self.run.segments if segment.last > self.last), None)

    def is_end(self) -> bool:
        """Whether the run has ended and its log ends here, or even before. A retried run has later events."""
        return self.run.status in TERMINAL and self.heard <= self.run.seq <= self.last

    def is_short(self) -> bool:
        """Whether the run has ended and its log goes further than this."""
        return self.run.status in TERMINAL and self.run.seq > self.last


def _seq(event: Event) -> int:
    return event.seq
