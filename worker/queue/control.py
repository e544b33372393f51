"""Hears the nudges of the control channel: cancels for this worker's runs, and when to look at the queue."""

import asyncio

from infra.contract.errors import StoreUnavailable
from infra.contract.log import LogFeed
from infra.logging import log
from worker.lease import LeaseKeeper
from worker.queue.alarm import Alarm

RECONNECT_S = 1.0


class Control:
    """Listens for as long as the worker lives. What is missed while away comes with the next renewal or look."""

    def __init__(self, feed: LogFeed, channel: str, keeper: LeaseKeeper, alarm: Alarm) -> None:
        self._feed = feed
        self._channel = channel
        self._keeper = keeper
        self._alarm = alarm

    async def listen_forever(self) -> None:
        """Subscribe, look once (something may have been missed), act on each nudge; again when the connection ends."""
        while True:
            try:
                async with self._feed.subscribe(self._channel) as messages:
                    self._alarm.hasten(0)
                    async for message in messages:
                        self._heard(message)
            except StoreUnavailable as exc:
                log("control.lost", reason=str(exc))
            await asyncio.sleep(RECONNECT_S)

    def _heard(self, message: str) -> None:
        match message.split():
            case ["cancel", run_id]:
                self._keeper.cancel(run_id)
            case ["next", ms] if ms.isdecimal():
                self._alarm.set(int(ms))
            case ["due", ms] if ms.isdecimal():
                self._alarm.hasten(int(ms))
            case _:
                log("control.unknown", message=message[:100])
