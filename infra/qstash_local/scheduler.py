"""Loop of the stand-in: sleeps until something is due, delivers messages, turns ticks of schedules into messages."""

import asyncio
import logging
from collections import Counter
from urllib.parse import urlsplit

from infra.contract.errors import ContractError, InvalidInput
from infra.cron import Cron
from infra.logging import log
from infra.qstash_local.delivery import Deliverer, callbacks, now_ms
from infra.qstash_local.messages import CronSchedule, QueuedMessage, TakenMessage
from infra.qstash_local.settings import QStashLocalSettings
from infra.qstash_local.state import QStashState

IDLE_S = 600.0
"""Longest sleep. Publications through this process wake it; this is for those through another one."""
OUTAGE_S = 1.0
POSTPONED_S = 1.0
"""Delay of a message whose host has `concurrency_per_host` deliveries under way, or whose key has its own number of
them. Messages of schedules are counted apart from others: webhooks, whose receivers may not answer, cannot delay the
ticks for the same API."""


class Scheduler:
    """Delivers what is due. Several processes may share one state: each message is taken by one of them."""

    def __init__(self, state: QStashState, deliverer: Deliverer, settings: QStashLocalSettings) -> None:
        self._state = state
        self._deliverer = deliverer
        self._settings = settings
        self._changed = asyncio.Event()
        self._active: set[asyncio.Task[None]] = set()
        self._under_way: Counter[tuple[str, object]] = Counter()

    def wake(self) -> None:
        """Look again now: something may be due earlier than at the last look."""
        self._changed.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            self._changed.clear()
            try:
                wait_s = await self._round()
            except ContractError as exc:
                log("qstash.store_failed", level=logging.WARNING, reason=str(exc))
                wait_s = OUTAGE_S
            except Exception as exc:  # noqa: BLE001 whatever it is: without this loop nothing is delivered any more
                log("qstash.loop_crashed", level=logging.ERROR, error=exc)
                wait_s = OUTAGE_S
            if wait_s > 0:
                await self._sleep(wait_s)

    async def drain(self, timeout_s: float) -> None:
        """Wait for deliveries under way, then stop them; another process repeats them after their timeout."""
        if self._active:
            await asyncio.wait(self._active, timeout=timeout_s)
        for task in self._active:
            task.cancel()
        await asyncio.gather(*self._active, return_exceptions=True)

    async def _round(self) -> float:
        """Start what is due; return the time until something is due again, in seconds."""
        free = self._settings.concurrency - len(self._active)
        if free <= 0:
            return IDLE_S  # the end of a delivery wakes the loop
        look = await self._state.look(free)
        for name in look.unreadable:
            log("qstash.unreadable", level=logging.ERROR, name=name)
        for taken in look.messages:
            self._start(taken)
        full = False
        for tick_ms, schedule in look.ticks:
            full = not await self._tick(schedule, tick_ms) or full
        if full:
            return OUTAGE_S
        # More may be due than was taken, and a new message of a schedule is due immediately.
        if look.ticks or len(look.messages) == free:
            return 0.0
        return IDLE_S if look.next_ms is None else min(look.next_ms / 1000, IDLE_S)

    async def _sleep(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _tick(self, schedule: CronSchedule, tick_ms: int) -> bool:
        """Turn a tick into a message; False if no more messages are taken. Ticks that were missed become one."""
        now = now_ms()
        message = QueuedMessage(call=schedule.call, created_ms=now, schedule_id=schedule.id, tick_ms=tick_ms)
        try:
            next_ms = Cron.parse(schedule.cron).after(max(now, tick_ms))
        except InvalidInput:  # its zone is not known to this host: it would be due for ever
            await self._state.pause(schedule.id)
            log("qstash.unreadable", level=logging.ERROR, name=f"schedule {schedule.id}")
            return True
        outcome = await self._state.store_tick(schedule, tick_ms, next_ms, message)
        if outcome == "FULL":
            log("qstash.full", level=logging.WARNING, schedule=schedule.id)
        return outcome != "FULL"

    def _start(self, taken: TakenMessage) -> None:
        task = asyncio.create_task(self._deliver(taken), name=f"deliver {taken.id}")
        self._active.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._active.discard(task)
        if len(self._active) == self._settings.concurrency - 1:
            self._changed.set()
        if not task.cancelled() and (error := task.exception()):
            # The message is due again after its timeout.
            log("qstash.delivery_crashed", level=logging.ERROR, error=error)

    async def _deliver(self, taken: TakenMessage) -> None:
        bounds = self._bounds(taken)
        if any(self._under_way[each] >= most for each, most in bounds.items()):
            await self._settle(taken, "postponed", delay_s=POSTPONED_S)
            self.wake()  # the loop may sleep until something that is due later
            return
        self._under_way.update([*bounds])
        try:
            response = await self._deliverer.deliver(taken)
        finally:
            self._under_way -= Counter([*bounds])  # which drops those without deliveries
        verdict = self._deliverer.verdict(taken, response)
        calls = callbacks(taken, response, verdict.outcome)
        settled = await self._settle(
            taken, verdict.outcome, response=response, delay_s=verdict.delay_s, callbacks=calls, now_ms=now_ms()
        )
        if verdict.outcome == "failed":
            log("qstash.dead_letter", level=logging.WARNING, message=taken.id, status=response.status)
        elif verdict.outcome == "retry":
            log("qstash.attempt_failed", message=taken.id, status=response.status, retried=taken.retried)
        if settled and (calls or verdict.outcome == "retry"):
            self.wake()

    def _bounds(self, taken: TakenMessage) -> dict[tuple[str, object], int]:
        """Return what the delivery counts for, with the number of deliveries at a time."""
        call = taken.message.call
        host = urlsplit(call.url).netloc, taken.message.schedule_id is not None
        bounds: dict[tuple[str, object], int] = {host: self._settings.concurrency_per_host}
        if call.flow_key:
            bounds["flow", call.flow_key] = call.parallelism
        return bounds

    async def _settle(self, taken: TakenMessage, outcome: str, **details: object) -> bool:
        """Store the end of an attempt; False if it is lost. Without the store the message is delivered again."""
        try:
            return await self._state.settle(taken, outcome, **details)  # type: ignore[arg-type]
        except ContractError as exc:
            log("qstash.store_failed", level=logging.WARNING, reason=str(exc))
            return False
