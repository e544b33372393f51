"""Schedules in Redis: guarded changes, one method per script, and reads."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from infra.contract.errors import LimitExceeded, RecordUnreadable, ScheduleGone
from infra.contract.keys import TICK_DAYS, Keys
from infra.contract.redis import Argument, Redis, Reply
from infra.contract.redis_store import codec, scripts
from infra.contract.redis_store.id_index import read_index
from infra.contract.redis_store.reader import readable, replies_or_none
from infra.contract.runs import Brief, RunSpec
from infra.contract.schedules import (
    MAX_SCHEDULES,
    LastTick,
    Overlap,
    ScheduleHead,
    ScheduleRecord,
    ScheduleSpec,
    Tick,
    TickOutcome,
)
from infra.contract.states import Outcome

_CREATE, _CHANGE, _CONFIRM, _TICK = map(
    scripts.load, ("schedule_create", "schedule_change", "schedule_confirm", "schedule_tick")
)
_HEAD = (
    "id",
    "user",
    "cron",
    "timezone",
    "overlap",
    "paused",
    "title",
    "created_ms",
    "revision",
    "confirmed",
    "condemned",
    "last",
)
_TICK_S = int(timedelta(days=TICK_DAYS).total_seconds())

Change = tuple[str, int]
"""Id of a schedule, and revision of the change."""


class ScheduleStore:
    """Schedules of all users.

    Every method raises StoreUnavailable if Redis did not reply in time; the change may then have been made, and calling
    the method again with the same arguments is safe.
    """

    def __init__(self, redis: Redis, keys: Keys | None = None) -> None:
        self._redis = redis
        self._keys = keys or Keys()
        self._scripts = scripts.ScriptCaller(redis, self._keys)

    async def create(self, schedule_id: str, user: str, spec: ScheduleSpec, *, digest: str) -> Outcome:
        """Record a schedule. SAME, REFUSED: as for runs. Raises LimitExceeded if the user has MAX_SCHEDULES."""
        reply = await self._scripts.call(
            _CREATE,
            {"id": schedule_id, **_fields(spec), "digest": digest, "max_schedules": MAX_SCHEDULES},
            user=user,
            named_keys=self._named(schedule_id, user),
        )
        if reply == "FULL":
            raise LimitExceeded(f"you have {MAX_SCHEDULES} schedules, and more are not allowed; delete one")
        return Outcome(str(reply))

    async def change(self, record: ScheduleRecord, spec: ScheduleSpec) -> int | None:
        """Replace the spec of a schedule. Return the new revision; None if it was changed since `record` was read.

        Raises ScheduleGone.
        """
        more = [value for pair in _fields(spec).items() for value in pair]
        reply = await self._scripts.call(
            _CHANGE,
            {"id": record.id, "revision": record.revision, "condemned": 0},
            named_keys=self._named(record.id, record.user),
            more_args=more,
        )
        return _revision(reply, record.id)

    async def mark_deleting(self, head: ScheduleHead) -> int | None:
        """Let the schedule create no more runs. Result and errors as in `change`."""
        reply = await self._scripts.call(
            _CHANGE,
            {"id": head.id, "revision": head.revision, "condemned": 1},
            named_keys=self._named(head.id, head.user),
        )
        return _revision(reply, head.id)

    async def confirm(self, schedule_id: str, user: str, revision: int, changes: Sequence[Change]) -> bool:
        """Record that QStash has this revision, and remove a schedule that is being deleted.

        False if the schedule was changed since: QStash needs the newer revision. `changes` are completed by this one.
        """
        reply = await self._scripts.call(
            _CONFIRM,
            {"id": schedule_id, "revision": revision},
            named_keys=self._named(schedule_id, user),
            more_args=[f"{name}:{number}" for name, number in changes],
        )
        return reply == "OK"

    async def unconfirmed(self, before_ms: int, count: int) -> list[Change]:
        """Return changes that were made before a time, and that QStash has not confirmed."""
        index = self._keys.unconfirmed_schedules
        command = ("ZRANGEBYSCORE", index, "-inf", before_ms, "LIMIT", 0, count)
        found = await read_index(self._scripts, index, lambda: self._redis.command(*command))
        pairs = [str(member).rpartition(":") for member in codec.items(found)]
        return [(schedule_id, int(revision)) for schedule_id, _, revision in pairs if revision.isdecimal()]

    async def tick(self, schedule_id: str, tick: str, run_id: str, *, by_hand: bool) -> tuple[Tick, RunSpec | None]:
        """Decide about a tick, once: return the decision, and the run to create if there is one.

        `run_id` is the id of the run that the tick is to create.
        """
        reply = await self._scripts.call(
            _TICK,
            {"run_id": run_id, "by_hand": int(by_hand), "tick_s": _TICK_S},
            named_keys={"schedule": self._keys.schedule(schedule_id), "tick": self._keys.tick(schedule_id, tick)},
        )
        decision, *run = codec.items(reply)
        made = msgspec.json.decode(str(decision), type=Tick)
        if made.outcome is not TickOutcome.STARTED:
            return made, None
        return made, msgspec.json.decode(str(run[0]), type=RunSpec)

    async def get(self, schedule_id: str) -> ScheduleRecord:
        """Return a schedule. Raises ScheduleGone and RecordUnreadable."""
        with readable(schedule_id, "schedule"):
            found = codec.items(await self._redis.command("HMGET", self._keys.schedule(schedule_id), *_HEAD, "run"))
            if found[0] is None:
                raise gone(schedule_id)
            return ScheduleRecord(**_head(found), run=msgspec.json.decode(str(found[-1]), type=RunSpec))

    async def of_user(self, user: str) -> tuple[list[ScheduleHead], list[str]]:
        """Return the schedules of a user, oldest first, and the ids of those whose records cannot be read."""
        index = self._keys.user_schedules(user)
        found = await read_index(self._scripts, index, lambda: self._redis.command("ZRANGE", index, 0, -1))
        ids = [*map(str, codec.items(found))]
        commands: list[list[Argument]] = [["HMGET", self._keys.schedule(each), *_HEAD] for each in ids]
        heads, unreadable = [], []
        for schedule_id, reply in zip(ids, await replies_or_none(self._redis, commands), strict=True):
            try:
                with readable(schedule_id, "schedule"):
                    fields = codec.items(reply)
                    if any(field is not None for field in fields):
                        heads.append(ScheduleHead(**_head(fields)))
            except RecordUnreadable:
                unreadable.append(schedule_id)
        return heads, unreadable

    def _named(self, schedule_id: str, user: str) -> Mapping[str, str]:
        return {"schedule": self._keys.schedule(schedule_id), "user_schedules": self._keys.user_schedules(user)}


def gone(schedule_id: str) -> ScheduleGone:
    """Return the error for a schedule that does not exist, or belongs to another user."""
    return ScheduleGone(f"there is no schedule '{schedule_id[:64]}'")


def _fields(spec: ScheduleSpec) -> dict[str, str]:
    return {
        "cron": spec.cron,
        "timezone": spec.timezone,
        "overlap": spec.overlap.value,
        "paused": str(int(spec.paused)),
        "title": Brief.of(spec.run).title,
        "run": codec.encode(spec.run),
    }


def _head(fields: Sequence[Reply]) -> dict[str, Any]:
    """Return the fields of ScheduleHead from the fields of the hash."""
    held = dict(zip(_HEAD, (None if each is None else str(each) for each in fields), strict=False))
    last, revision = held["last"], int(held["revision"] or 0)
    if not (held["id"] and held["user"]):
        raise LookupError("the record has no id or no user")
    return {
        "id": held["id"],
        "user": held["user"],
        "cron": held["cron"],
        "timezone": held["timezone"],
        "overlap": Overlap(str(held["overlap"])),
        "paused": held["paused"] == "1",
        "title": held["title"],
        "created_ms": int(held["created_ms"] or 0),
        "revision": revision,
        "confirmed": held["confirmed"] == str(revision),
        "deleting": held["condemned"] == "1",
        "last": None if last is None else msgspec.json.decode(last, type=LastTick),
    }


def _revision(reply: Reply, schedule_id: str) -> int | None:
    outcome, *revision = codec.items(reply)
    if outcome == Outcome.GONE:
        raise gone(schedule_id)
    return None if outcome == Outcome.REFUSED else int(str(revision[0]))
