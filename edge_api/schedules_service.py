"""Operations on the schedules of a user, the ticks that QStash sends, and the repair of what a crash left half done."""

import hashlib
import logging
import re
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from edge_api.http.errors import KeyReused, SchedulesOff
from edge_api.http.schedule_models import ChangeSchedule, TickResult
from edge_api.ports import QStashPort
from edge_api.run_states import request_token
from edge_api.runs_service import RunService, run_id_of
from infra.contract.errors import (
    LimitExceeded,
    QStashUnavailable,
    RecordUnreadable,
    RunGone,
    ScheduleGone,
    TransitionRefused,
)
from infra.contract.redis_store import codec
from infra.contract.redis_store.schedule_store import Change, ScheduleStore, gone
from infra.contract.schedules import (
    MAX_RUN_BYTES,
    METADATA_KEY,
    TICK_PATH,
    ScheduleHead,
    ScheduleRecord,
    ScheduleSpec,
    TickOutcome,
)
from infra.contract.states import Outcome
from infra.logging import log

UNCONFIRMED_AFTER_MS = 60_000
"""Age at which a change that QStash has not confirmed is carried out again: the request that made it has ended."""
MAX_REPAIRS = 20
_TRIES = 5
_ID = re.compile(r"sch_[0-9a-f]{32}")


class TickBody(msgspec.Struct, frozen=True):
    """Body of the calls of QStash for a schedule."""

    schedule: str


class Scheduling(msgspec.Struct, frozen=True):
    """Store of schedules, and QStash, which calls when they are due."""

    store: ScheduleStore
    qstash: QStashPort


class ScheduleService:
    """Operations on schedules. Every method raises ScheduleGone also for a schedule of another user, and SchedulesOff
    without access to QStash.

    A change is recorded first, then sent to QStash. If sending fails with QStashUnavailable, `repair` repeats it later.
    """

    def __init__(self, runs: RunService, scheduling: Scheduling | None) -> None:
        self._runs = runs
        self._scheduling = scheduling

    async def create(self, user: str, spec: ScheduleSpec, *, key: str | None) -> tuple[ScheduleRecord, bool]:
        """Create a schedule. Return it, and whether this call created it.

        Raises InvalidInput, LimitExceeded, KeyReused as for a run, and QStashUnavailable.
        """
        qstash = self.qstash
        self._check(spec)
        schedule_id = f"sch_{request_token(user, key)}"
        digest = hashlib.sha256(codec.encode(spec).encode()).hexdigest()
        outcome = await self._store.create(schedule_id, user, spec, digest=digest)
        if outcome is Outcome.REFUSED:
            raise KeyReused("this Idempotency-Key was used for another schedule, or its schedule is being deleted")
        # Also for a repeated request: the first one may have ended before it reached QStash.
        record = await self._synchronise(qstash, schedule_id, [(schedule_id, 1)] if outcome is Outcome.OK else [])
        if outcome is Outcome.OK:
            log("schedule.created", schedule=schedule_id, user=user)
        return record or await self.get(user, schedule_id), outcome is Outcome.OK

    async def get(self, user: str, schedule_id: str) -> ScheduleRecord:
        """Return the user's schedule."""
        if not _ID.fullmatch(schedule_id):
            raise gone(schedule_id)
        record = await self._store.get(schedule_id)
        if record.user != user or record.deleting:
            raise gone(schedule_id)
        return record

    async def all(self, user: str) -> tuple[list[ScheduleHead], list[str]]:
        """Return the schedules of the user, oldest first, and the ids of those whose records cannot be read."""
        heads, unreadable = await self._store.of_user(user)
        return [head for head in heads if not head.deleting], unreadable

    async def change(self, user: str, schedule_id: str, wanted: ChangeSchedule) -> ScheduleRecord:
        """Change a schedule. Raises InvalidInput, LimitExceeded and QStashUnavailable."""
        for _ in range(_TRIES):
            record = await self.get(user, schedule_id)
            spec = wanted.applied_to(record.spec)
            self._check(spec)
            revision = await self._store.change(record, spec)
            if revision is not None:
                synchronised = await self._synchronise(self.qstash, schedule_id, [(schedule_id, revision)])
                return synchronised or await self.get(user, schedule_id)
        raise TransitionRefused("the schedule is changed by other requests; try again", "changing")

    async def delete(self, user: str, schedule_id: str) -> None:
        """Delete a schedule; its runs stay. Raises QStashUnavailable: it creates no more runs all the same."""
        for _ in range(_TRIES):
            record = await self._store.get(schedule_id) if _ID.fullmatch(schedule_id) else None
            if record is None or record.user != user:
                raise gone(schedule_id)
            revision = await self._store.mark_deleting(record)
            if revision is not None:
                await self._synchronise(self.qstash, schedule_id, [(schedule_id, revision)])
                log("schedule.deleted", schedule=schedule_id, user=user)
                return
        raise TransitionRefused("the schedule is changed by other requests; try again", "changing")

    async def run_now(self, user: str, schedule_id: str, *, key: str | None) -> TickResult:
        """Create a run immediately, also of a paused schedule, as its overlap policy allows."""
        record = await self.get(user, schedule_id)
        return await self._tick(record, f"hand:{request_token(user, key)}", by_hand=True)

    async def tick(self, schedule_id: str, message_id: str) -> TickResult:
        """Carry out a tick that QStash has sent. A message that comes again has the same result."""
        if not _ID.fullmatch(schedule_id):
            raise gone(schedule_id)
        try:
            record = await self._store.get(schedule_id)
        except ScheduleGone:
            record = None
        if record is None or record.deleting:
            # Left by a deletion that was interrupted, or by a database that was restored.
            await self.qstash.delete_schedule(schedule_id)
            return TickResult(outcome=TickOutcome.GONE, run_id=None)
        return await self._tick(record, hashlib.sha256(message_id.encode()).hexdigest()[:32], by_hand=False)

    async def repair(self, now_ms: int) -> int:
        """Send changes whose requests failed before they reached QStash; return the number of changes sent."""
        if self._scheduling is None:
            return 0
        found = await self._store.unconfirmed(now_ms - UNCONFIRMED_AFTER_MS, MAX_REPAIRS)
        by_schedule: dict[str, list[Change]] = {}
        for change in found:
            by_schedule.setdefault(change[0], []).append(change)
        done = 0
        for schedule_id, changes in by_schedule.items():
            try:
                await self._synchronise(self.qstash, schedule_id, changes)
                done += len(changes)
            except RecordUnreadable as exc:
                log("schedule.unconfirmed", level=logging.WARNING, schedule=schedule_id, reason=str(exc))
            except QStashUnavailable:
                break  # the others would fail as well, each after a timeout
        return done

    @property
    def qstash(self) -> QStashPort:
        """QStash. Raises SchedulesOff without access to it."""
        return self._parts.qstash

    @property
    def _store(self) -> ScheduleStore:
        return self._parts.store

    @property
    def _parts(self) -> Scheduling:
        if self._scheduling is None:
            raise SchedulesOff("this API has no access to QStash; its operator sets QSTASH_TOKEN")
        return self._scheduling

    async def _synchronise(
        self, qstash: QStashPort, schedule_id: str, changes: Sequence[Change]
    ) -> ScheduleRecord | None:
        """Bring QStash to the recorded state of a schedule, and mark the changes as done; None if it is deleted.

        Raises QStashUnavailable, whose reason is in the log alone: it may be a setting of the operator.
        """
        try:
            return await self._bring_to_record(qstash, schedule_id, changes)
        except QStashUnavailable as exc:
            log("schedule.unconfirmed", level=logging.WARNING, schedule=schedule_id, reason=str(exc))
            raise

    async def _bring_to_record(
        self, qstash: QStashPort, schedule_id: str, changes: Sequence[Change]
    ) -> ScheduleRecord | None:
        from infra.cron import Cron

        for _ in range(_TRIES):
            try:
                record = await self._store.get(schedule_id)
            except ScheduleGone:
                await qstash.delete_schedule(schedule_id)
                await self._store.confirm(schedule_id, "", 0, changes)
                return None
            # A paused schedule does not exist in QStash, so that one repeatable call reaches either state.
            if record.paused or record.deleting:
                await qstash.delete_schedule(schedule_id)
            else:
                body = msgspec.json.encode(TickBody(schedule_id)).decode()
                await qstash.put_schedule(schedule_id, TICK_PATH, str(Cron(record.cron, record.timezone)), body)
            # If the schedule was changed meanwhile, the other request may have reached QStash before this one.
            if await self._store.confirm(schedule_id, record.user, record.revision, changes):
                return None if record.deleting else msgspec.structs.replace(record, confirmed=True)
        return None

    async def _tick(self, record: ScheduleRecord, tick: str, *, by_hand: bool) -> TickResult:
        # The key makes the run of a tick one run, and its id known before it exists.
        user, key = record.user, f"schedule:{record.id}:{tick}"
        decision, run = await self._store.tick(record.id, tick, run_id_of(user, key), by_hand=by_hand)
        if decision.cancels:
            with suppress(RunGone, TransitionRefused):  # it has ended, or was deleted
                await self._runs.cancel(user, decision.cancels)
        if run is not None:
            spec = msgspec.structs.replace(run, metadata={**run.metadata, METADATA_KEY: record.id})
            # The same tick may have created it before the schedule was given another run.
            with suppress(KeyReused):
                await self._runs.create(user, spec, start=True, key=key)
        log("schedule.tick", schedule=record.id, outcome=decision.outcome, run_id=decision.run_id)
        return TickResult(outcome=decision.outcome, run_id=decision.run_id)

    def _check(self, spec: ScheduleSpec) -> None:
        """Raise InvalidInput, LimitExceeded or WebhooksOff for a schedule that cannot work."""
        from infra.cron import Cron  # with time zones, which a cold start for other requests does not need

        Cron(spec.cron, spec.timezone).check("$.cron", "$.timezone")
        spec.check_run()
        if spec.run.webhook_url is not None:
            self._runs.check_webhook(spec.run, "$.run")
        size = len(codec.encode(spec.run).encode())
        if size > MAX_RUN_BYTES:
            raise LimitExceeded(f"the run has {size} bytes as JSON; at most {MAX_RUN_BYTES} are allowed", "$.run")
