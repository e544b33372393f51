"""Reading of a run's log live, without skipping, repeating or polling.

How a reader passes from replay to live:

1. REPLAY: give out the stored events up to the last one that the run's record names. A run that has ended needs no
   subscription, so its log ends here.
2. Subscribe to the run's channel, and wait until the subscription is confirmed. From then on every published batch
   arrives in the reader's inbox.
3. SUBSCRIBED: read back from storage the events that were appended before the confirmation.
4. LIVE: take the batches from the inbox. Drop events with a seq up to `position.last`, because the read-back has given
   them out. If a batch leaves a hole, a message was lost: read the events in the hole from storage. Only events that
   storage does not have become a Gap.

A failure of the upstream leads to RETRY, which begins again with step 1 at the position that was reached.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from enum import Enum, auto

from edge_api.http.response_models import StreamEnd
from edge_api.logs.backoff import RETRY_LAST_S, backoff_s
from edge_api.logs.fanout import Fanout, Listener
from edge_api.logs.items import Item, is_terminal_event
from edge_api.logs.position import Position
from edge_api.logs.stored import CatchUp, StoredLog
from infra.contract.errors import FilesUnavailable, RunGone, StoreUnavailable
from infra.contract.log import LogArchive, RunLog
from infra.contract.redis_store.reader import RunReader
from infra.contract.states import TERMINAL
from infra.logging import log

LOOK_S = 1.0
"""Age of the record above which a new subscriber reads it again: the run may have ended or been deleted since."""
QUIET_S = 2.0
"""Time without a message after which a new subscriber reads back once more, in case a replica lagged behind."""


class LogReader:
    """Follows logs for any number of clients. All followers of one run share one subscription."""

    def __init__(self, store: RunReader, fanout: Fanout, archive: LogArchive) -> None:
        self._store = store
        self._fanout = fanout
        self._archive = archive

    def follow(self, run: RunLog, after: int) -> "LogFollower":
        """Return a follower of the run's log that begins after event `after`."""
        return LogFollower(self._store, self._fanout, self._archive, Position(run, after))


class ReadState(Enum):
    """State of a follower; see the module's docstring."""

    REPLAY = auto()
    SUBSCRIBED = auto()
    LIVE = auto()
    RETRY = auto()
    ENDED = auto()


class LogFollower:
    """Follows one run's log for one client: every event once and in order, then a StreamEnd.

    Ends without a StreamEnd if the run is deleted. Retries for ever if Redis or the object store fails. Close with
    `aclose()` when the client has left.
    """

    def __init__(self, store: RunReader, fanout: Fanout, archive: LogArchive, position: Position) -> None:
        self._channel = store.keys.channel(position.run.id)
        self._fanout = fanout
        self._position = position
        self._stored = StoredLog(store, archive, position)
        self._subscription = ExitStack()
        self._listener: Listener | None = None
        self._catch_up: CatchUp | None = None
        self._is_after_terminal = False
        self._failures = 0
        self._begin()

    async def next_batch(self) -> Sequence[Item] | None:
        """Wait for the next items and return them; None at the end."""
        while self._state is not ReadState.ENDED:
            try:
                items = await self._step()
            except (StoreUnavailable, FilesUnavailable) as exc:
                run_id, after = self._position.run.id, self._position.last
                log("stream.retry", run_id=run_id, after=after, reason=str(exc))
                await self._retry()
            except RunGone:
                await self.aclose()
            else:
                if items:
                    self._is_after_terminal = is_terminal_event(items[-1])
                    return items
        return None

    async def aclose(self) -> None:
        """End: leave the channel, and close the segment that is being read."""
        self._state = ReadState.ENDED
        await self._release()

    async def _step(self) -> Sequence[Item]:
        """Do the next step of the current state. Return its items; empty if only the state has changed."""
        position = self._position
        if self._is_after_terminal and not position.is_end():
            # Only the record shows whether the run has ended: a retried run has events after a terminal one.
            self._is_after_terminal = False
            await self._stored.refresh()
        if position.is_end():
            await self.aclose()
            return [StreamEnd(status=position.run.status, last_seq=position.run.seq)]
        if self._catch_up is not None:
            if items := await self._catch_up.next_batch():
                return items
            self._catch_up = None
        if self._listener is None:
            await (self._begin_again() if self._state is ReadState.RETRY else self._subscribe())
        elif self._state is ReadState.SUBSCRIBED:
            await self._go_live(self._listener)
        else:
            return await self._receive(self._listener)
        return []

    def _begin(self) -> None:
        """REPLAY: give out what is known to be stored."""
        self._begun_s = time.monotonic()
        self._state = ReadState.REPLAY
        run = self._position.run
        if run.status in TERMINAL:
            self._catch_up = CatchUp(self._stored, to_end=True)
        elif run.seq > self._position.last:
            # Read before subscribing: the stored log can be long, and a long poll is complete without a subscription.
            self._catch_up = CatchUp(self._stored)

    async def _subscribe(self) -> None:
        """REPLAY → SUBSCRIBED."""
        if self._position.run.status in TERMINAL:
            # All events that the record names are given out, but later ones were seen: the record is outdated, because
            # the run has been retried.
            await self._retry()
            return
        self._listener = self._subscription.enter_context(self._fanout.join(self._channel))
        await self._listener.confirmed()
        if time.monotonic() - self._begun_s > LOOK_S:
            await self._stored.refresh()
        self._state = ReadState.SUBSCRIBED
        self._catch_up = CatchUp(self._stored)

    async def _go_live(self, listener: Listener) -> None:
        """SUBSCRIBED → LIVE."""
        self._state = ReadState.LIVE
        # An event published just before the confirmation may have been missing on the replica that was read back.
        if not await listener.wait(QUIET_S):
            self._catch_up = CatchUp(self._stored)

    async def _receive(self, listener: Listener) -> Sequence[Item]:
        """LIVE: return the new events of the next published batch, and catch up if events before it are missing."""
        position = self._position
        batch = await listener.next_batch()
        if batch is None:
            # The subscription has ended, or this client was too slow for its inbox.
            await self._retry()
            return []
        if position.take_all(batch):
            return batch
        fresh = position.take(batch)
        if not fresh and (batch.damaged or any(map(is_terminal_event, batch))):
            # A damaged message can mean that the run has been deleted. A terminal event that is not new means that the
            # log ends before the position which the client claims.
            await self._stored.refresh()
        if batch.damaged or position.first_after_hole(batch):
            self._catch_up = CatchUp(self._stored, batch)
        return fresh

    async def _retry(self) -> None:
        """Any state → RETRY."""
        await self._release()
        # The delay grows only while the upstream keeps failing soon after each attempt.
        has_lasted = time.monotonic() - self._begun_s > RETRY_LAST_S
        self._failures = 0 if has_lasted else self._failures + 1
        self._state = ReadState.RETRY

    async def _begin_again(self) -> None:
        """RETRY → REPLAY, after a delay."""
        await asyncio.sleep(backoff_s(self._failures))
        self._begun_s = time.monotonic()
        # Without this a run that has ended since would be followed for ever, because its record still says `running`.
        await self._stored.refresh()
        self._begin()

    async def _release(self) -> None:
        self._subscription.close()
        self._listener = None
        self._catch_up = None
        await self._stored.aclose()
