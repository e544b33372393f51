"""Publishes the outbox of webhooks to QStash, which then calls the API for each event.

In a worker, `publish_forever` runs beside its runs. In the API, whoever changes a run awaits `publish_noted`, because a
function on Lambda is frozen between its requests.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from msgspec import json

from infra.contract.errors import QStashUnavailable, StoreRejected, StoreUnavailable
from infra.contract.redis_store.webhook_store import WebhookStore
from infra.contract.webhooks import AGAIN_MS, DELIVER_PATH, EventRef
from infra.logging import log

MAX_NOTED = 10_000
"""Entries that wait in this process; further ones are published when they are overdue."""
TAKEN_AT_ONCE = 50
CALLS_AT_ONCE = 10
"""Calls of QStash at a time. If all of them fail, further ones are not tried now: each may last as long as its
deadline."""
OVERDUE_S = 10.0
"""Time after which no further overdue entries are taken at once: the call of the recovery tick must get its answer, and
what this process notes meanwhile comes first."""


class QStashPublish(Protocol):
    """Part of QStash that this module calls."""

    async def publish(self, path: str, body: str, deduplication_id: str, sharer: str) -> None:
        """Let QStash POST the body to a path of the API, few of one sharer at a time. Raises QStashUnavailable."""
        ...


class EventPublisher:
    """Publisher of entries of the outbox, and the `EventSink` of the store in the same process."""

    def __init__(self, store: WebhookStore, qstash: QStashPublish) -> None:
        self._store = store
        self._qstash = qstash
        self._noted: deque[str] = deque(maxlen=MAX_NOTED)
        self._overdue = False
        self._wake = asyncio.Event()

    def noted(self, entry: str) -> None:
        """Publish an entry that this process has put into the outbox."""
        if len(self._noted) < MAX_NOTED:
            self._noted.append(entry)
        self._wake.set()

    def due(self) -> None:
        """Publish entries that nobody has published in time."""
        self._overdue = True
        self._wake.set()

    async def publish_noted(self) -> bool:
        """Publish the entries of this process; return whether all are published.

        What fails stays in the outbox, and is published when it is overdue.
        """
        entries = self._take_noted()
        return await self._publish(entries) == len(entries)

    async def publish_overdue(self) -> tuple[int, bool]:
        """Publish entries that nobody has published in time; return their number, and whether none has failed.

        After OVERDUE_S the rest is left to `publish_forever`, to the next claim, or to the next recovery tick.
        """
        published, ends_at = 0, time.monotonic() + OVERDUE_S
        while True:
            try:
                entries = await self._store.take(TAKEN_AT_ONCE)
            except (StoreUnavailable, StoreRejected) as exc:
                log("webhook.publish_failed", level=logging.WARNING, reason=str(exc))
                return published, False
            done = await self._publish(entries)
            published += done
            if len(entries) < TAKEN_AT_ONCE or done < len(entries):
                return published, done == len(entries)
            if time.monotonic() >= ends_at:
                self.due()
                return published, True

    async def publish_forever(self) -> None:
        """Publish what is noted, and what is overdue; look again AGAIN_MS after a failure."""
        again_s: float | None = None
        while True:
            try:
                async with asyncio.timeout(again_s):
                    await self._wake.wait()
            except TimeoutError:
                self._overdue = True
            self._wake.clear()
            overdue, self._overdue = self._overdue, False
            entries = self._take_noted()
            try:
                complete = await self._publish(entries) == len(entries)
            except asyncio.CancelledError:
                # The worker ends, and calls `publish_noted` once more. QStash drops what it has already.
                self._noted.extendleft(reversed(entries))
                raise
            if overdue:
                complete = (await self.publish_overdue())[1] and complete
            again_s = None if complete else AGAIN_MS / 1000

    def _take_noted(self) -> list[str]:
        return [self._noted.popleft() for _ in range(len(self._noted))]

    async def _publish(self, entries: Sequence[str]) -> int:
        """Publish entries, and remove them from the outbox; return the number of those that are done with."""
        done: list[str] = []
        reason = None
        for first in range(0, len(entries), CALLS_AT_ONCE):
            group = entries[first : first + CALLS_AT_ONCE]
            failures = await asyncio.gather(*map(self._publish_one, group))
            done += [entry for entry, failure in zip(group, failures, strict=True) if failure is None]
            reason = next(filter(None, failures), reason)
            if None not in failures:
                break
        if reason:
            log("webhook.publish_failed", level=logging.WARNING, left=len(entries) - len(done), reason=reason)
        if not done:
            return 0
        try:
            await self._store.published(done)
        except (StoreUnavailable, StoreRejected) as exc:
            # They are published again later. QStash or the delivery recognises the duplicates.
            log("webhook.publish_failed", level=logging.WARNING, left=len(entries), reason=str(exc))
            return 0
        return len(done)

    async def _publish_one(self, entry: str) -> str | None:
        """Publish an entry; return why it is to be tried again, None if it is done with."""
        try:
            ref = EventRef.parse(entry)
        except ValueError:
            # It would be overdue for ever.
            log("webhook.entry_damaged", level=logging.ERROR, entry=entry[:200])
            return None
        body = json.encode({"event": entry}).decode()
        try:
            await self._qstash.publish(DELIVER_PATH, body, f"{ref.event_id}-{ref.round}", ref.user)
        except QStashUnavailable as exc:
            return str(exc)
        log("webhook.published", run_id=ref.run_id, event=ref.event_id)
        return None
