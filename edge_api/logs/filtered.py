"""Followed log without the events that a client does not want."""

import time
from collections.abc import Sequence

from edge_api.http.response_models import Gap, Skipped
from edge_api.logs.filters import EventFilter
from edge_api.logs.items import Item, ItemSource, is_terminal_event
from infra.contract.log import Event


class FilteredSource:
    """Source that passes on the events which match the filter, and everything else.

    A Skipped after unwanted events moves the client's last id, so that it never reads them again: after wanted events
    of the same batch, and at most every `every_s` while there are none.
    """

    def __init__(self, source: ItemSource, wanted: EventFilter, *, every_s: float) -> None:
        self._source = source
        self._wanted = wanted
        self._every_s = every_s
        self._passed_s = time.monotonic()

    async def next_batch(self) -> Sequence[Item] | None:
        """Wait for the next items and return them, at least one; None at the end."""
        while items := await self._source.next_batch():
            passed: list[Item] = [each for each in items if not isinstance(each, Event) or self._wanted.matches(each)]
            if len(passed) == len(items):
                self._passed_s = time.monotonic()
                return items  # not a copy: they may be framed already
            # The end of the log is announced by the item after its last event. A client that has this event already is
            # told nothing when it reconnects, so the last event must not be skipped alone.
            last = next((each for each in reversed(items) if not is_terminal_event(each)), None)
            is_due = bool(passed) or time.monotonic() >= self._passed_s + self._every_s
            if isinstance(last, Event) and is_due and (not passed or _seq(passed[-1]) < last.seq):
                passed.append(Skipped(last=last.seq))
            if passed:
                self._passed_s = time.monotonic()
                return passed
        return None

    async def aclose(self) -> None:
        """Release what the source holds open."""
        await self._source.aclose()


def _seq(item: Item) -> int:
    return item.seq if isinstance(item, Event) else item.last if isinstance(item, Gap | Skipped) else 0
