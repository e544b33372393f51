"""Listener to the control channel: cancels of this worker's runs, the time of the next claim, ends without an owner."""

import asyncio
from collections.abc import Callable

from infra.contract.errors import StoreRejected, StoreUnavailable
from infra.contract.log import LogFeed
from infra.logging import log
from worker.lease import LeaseKeeper
from worker.queue.alarm import Alarm

RESUBSCRIBE_S = 1.0
"""Pause before the next subscription. Fixed: nothing is lost meanwhile, and each worker has one such connection."""


class Control:
    """Subscription to the control channel for the life of the worker.

    A message that is missed while the connection is down does no harm: a cancel or an interrupt comes with the next
    lease renewal, and the time of the next claim with the next claim. `end_unowned` ends the programs of a run that has
    ended without an owner; it is called without a run after each subscription, for all runs that were missed.
    """

    def __init__(
        self,
        feed: LogFeed,
        channel: str,
        keeper: LeaseKeeper,
        alarm: Alarm,
        end_unowned: Callable[[str | None], None],
    ) -> None:
        self._feed = feed
        self._channel = channel
        self._keeper = keeper
        self._alarm = alarm
        self._end_unowned = end_unowned

    async def listen_forever(self) -> None:
        """Subscribe and handle each message; subscribe again when the connection ends."""
        while True:
            try:
                async with self._feed.subscribe(self._channel) as messages:
                    # A message may have been missed before the subscription was confirmed: claim now.
                    self._alarm.hasten(0)
                    self._end_unowned(None)
                    async for message in messages:
                        self._handle(message)
            except (StoreUnavailable, StoreRejected) as exc:
                log("control.lost", reason=str(exc))
            await asyncio.sleep(RESUBSCRIBE_S)

    def _handle(self, message: str) -> None:
        match message.split():
            case ["cancel", run_id]:
                self._keeper.cancel(run_id)
            case ["interrupt", run_id]:
                self._keeper.interrupt(run_id)
            case ["next", ms] if ms.isdecimal():
                self._alarm.set(int(ms))
            case ["due", ms] if ms.isdecimal():
                self._alarm.hasten(int(ms))
            case ["recover", ms] if ms.isdecimal():
                self._alarm.urge(int(ms))
            case ["ended", run_id]:
                self._end_unowned(run_id)
            case _:
                # A newer release may send messages that this one does not know.
                log("control.unknown", message=message[:100])
