"""State of the stand-in in Redis: messages, schedules, dead letters, events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from infra.contract.errors import LimitExceeded
from infra.contract.redis import Argument, Redis, Reply, Script
from infra.contract.redis_store.scripts import load
from infra.qstash_local.key_names import QStashKeys
from infra.qstash_local.messages import (
    CronSchedule,
    DeliveryResponse,
    MessageEvent,
    OutboundCall,
    QueuedMessage,
    TakenMessage,
    event,
)
from infra.qstash_local.parsing import new_id
from infra.qstash_local.settings import QStashLocalSettings

T = TypeVar("T")

DUPLICATES_S = 600
DEAD_S = 7 * 24 * 3600
MAX_DEAD = 10_000
MAX_EVENTS = 10_000
TICKS_PER_LOOK = 100
LEASE_MARGIN_S = 5.0
"""Time after the timeout of a delivery at which the message is delivered again, because its process must have died."""
_PACKAGE = "infra.qstash_local.scripts"

_LOOK, _PUBLISH, _SETTLE, _SCHEDULE, _RESUME, _TICK = (
    load(name, _PACKAGE) for name in ("look", "publish", "settle", "schedule", "resume", "tick")
)


@dataclass(frozen=True)
class Look:
    """Due messages and schedules. `next_ms`: time until something is due again; None if nothing is.

    `unreadable`: names of messages and schedules whose records are damaged. Such a message is due again later.
    """

    next_ms: int | None
    messages: list[TakenMessage]
    ticks: list[tuple[int, CronSchedule]]
    unreadable: list[str]

    def decoded(self, name: str, text: str, kind: type[T]) -> T | None:
        """Return a record; note the name and return None if the record is damaged."""
        try:
            return msgspec.json.decode(text, type=kind)
        except (msgspec.MsgspecError, ValueError):
            self.unreadable.append(name)
            return None


class QStashState:
    """Guarded changes and reads. Every method raises StoreUnavailable if Redis does not answer."""

    def __init__(self, redis: Redis, settings: QStashLocalSettings) -> None:
        self._redis = redis
        self._settings = settings

    async def publish(self, message: QueuedMessage, duplicates: str | None) -> tuple[str, bool]:
        """Store a message; return its id, or the id of the one that it duplicates and True. Raises LimitExceeded."""
        message_id = new_id("msg")
        outcome, known = await self._call(
            _PUBLISH,
            {"message": _message(message_id), "duplicates": QStashKeys.duplicates(duplicates)},
            {
                "id": message_id,
                "spec": _encode(message),
                "timeout_ms": _ms(message.call.timeout_s),
                "delay_ms": _ms(message.call.delay_s),
                "not_before_ms": message.not_before_ms,
                "duplicates_s": 0 if duplicates is None else DUPLICATES_S,
                "max_messages": self._settings.max_messages,
                "max_events": MAX_EVENTS,
                "event": _encode(event(message_id, message, "CREATED")),
            },
        )
        if outcome == "FULL":
            raise LimitExceeded(f"there are {self._settings.max_messages} messages already (QSTASH_LOCAL_MAX_MESSAGES)")
        return str(known), outcome == "SAME"

    async def look(self, count: int) -> Look:
        """Take up to `count` due messages, and return due schedules."""
        next_ms, messages, ticks = await self._call(
            _LOOK,
            {},
            {
                "message_prefix": QStashKeys.message_prefix,
                "count": count,
                "margin_ms": _ms(LEASE_MARGIN_S),
                "max_ticks": TICKS_PER_LOOK,
            },
        )
        look = Look(None if next_ms == -1 else int(next_ms), [], [], [])
        for name, spec, retried, take in _groups(messages, 4):
            message = look.decoded(f"message {name}", spec, QueuedMessage)
            if message is not None:
                look.messages.append(TakenMessage(id=name, message=message, retried=int(retried), take=int(take)))
        for name, at_ms, spec in _groups(ticks, 3):
            schedule = look.decoded(f"schedule {name}", spec, CronSchedule)
            if schedule is not None:
                look.ticks.append((int(float(at_ms)), schedule))
            else:
                await self.pause(name)  # it would be due for ever
        return look

    async def settle(
        self,
        taken: TakenMessage,
        outcome: str,
        *,
        response: DeliveryResponse | None = None,
        delay_s: float = 0.0,
        callbacks: Sequence[OutboundCall] = (),
        now_ms: int = 0,
    ) -> bool:
        """Store how an attempt has ended; False if the message was taken again or deleted since."""
        state = {"delivered": "DELIVERED", "failed": "FAILED"}.get(outcome, "RETRY")
        more: list[Argument] = []
        for number, call in enumerate(callbacks):
            more += [
                new_id("msg", taken.id, taken.take, number),
                _encode(QueuedMessage(call=call, created_ms=now_ms, schedule_id=taken.message.schedule_id)),
                _ms(call.timeout_s),
            ]
        reply = await self._call(
            _SETTLE,
            {"message": _message(taken.id), "dead_message": QStashKeys.dead_message(taken.id)},
            {
                "id": taken.id,
                "take": taken.take,
                "outcome": outcome,
                "delay_ms": _ms(delay_s),
                "failure": _encode(response),
                "dead_s": DEAD_S,
                "max_dead": MAX_DEAD,
                "max_events": MAX_EVENTS,
                "event": _encode(event(taken.id, taken.message, state, response)),
                "message_prefix": QStashKeys.message_prefix,
            },
            more,
        )
        return bool(reply == "OK")

    async def store_tick(self, schedule: CronSchedule, tick_ms: int, next_ms: int, message: QueuedMessage) -> str:
        """Turn the tick of a schedule into a message, once. Returns OK, LOST (another process did) or FULL."""
        message_id = new_id("msg", schedule.id, tick_ms)
        reply = await self._call(
            _TICK,
            {"message": _message(message_id)},
            {
                "schedule_id": schedule.id,
                "tick_ms": tick_ms,
                "next_ms": next_ms,
                "id": message_id,
                "spec": _encode(message),
                "timeout_ms": _ms(schedule.call.timeout_s),
                "delay_ms": _ms(schedule.call.delay_s),
                "max_messages": self._settings.max_messages,
                "max_events": MAX_EVENTS,
                "event": _encode(event(message_id, message, "CREATED")),
            },
        )
        return str(reply)

    async def save_schedule(self, schedule: CronSchedule, next_ms: int) -> None:
        """Store a schedule, or replace it. Raises LimitExceeded."""
        limit = self._settings.max_schedules
        args: dict[str, Argument] = {"id": schedule.id, "spec": _encode(schedule), "next_ms": next_ms}
        if await self._call(_SCHEDULE, {}, {**args, "max_schedules": limit}) == "FULL":
            raise LimitExceeded(f"there are {limit} schedules already")

    async def schedule(self, schedule_id: str) -> tuple[CronSchedule, int | None] | None:
        """Return a schedule and its next time; None for the time if it is paused, and None if there is no schedule."""
        text, score = await self._redis.pipeline(
            [["HGET", QStashKeys.schedules, schedule_id], ["ZSCORE", QStashKeys.ticks, schedule_id]]
        )
        return None if text is None else (_decode(str(text), CronSchedule), _time(score))

    async def schedules(self) -> list[tuple[CronSchedule, int | None]]:
        """Return all schedules with their next times."""
        found, ticks = await self._redis.pipeline(
            [["HVALS", QStashKeys.schedules], ["ZRANGE", QStashKeys.ticks, 0, -1, "WITHSCORES"]]
        )
        times = {each[0]: _time(each[1]) for each in _groups(ticks, 2)}
        decoded = [_decode(str(text), CronSchedule) for text in _items(found)]
        return sorted(((each, times.get(each.id)) for each in decoded), key=lambda pair: pair[0].id)

    async def pause(self, schedule_id: str) -> None:
        """Pause a schedule: it has no next time."""
        await self._redis.command("ZREM", QStashKeys.ticks, schedule_id)

    async def resume(self, schedule_id: str, next_ms: int) -> None:
        """Resume a schedule, which is due next at `next_ms`."""
        await self._call(_RESUME, {}, {"id": schedule_id, "next_ms": next_ms})

    async def delete_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule; False if there is none. Messages of its past ticks are delivered all the same."""
        deleted, _ = await self._redis.pipeline(
            [["HDEL", QStashKeys.schedules, schedule_id], ["ZREM", QStashKeys.ticks, schedule_id]]
        )
        return deleted == 1

    async def message(self, message_id: str) -> QueuedMessage | None:
        """Return a message that is yet to be delivered."""
        text = await self._redis.command("HGET", _message(message_id), "spec")
        return None if text is None else _decode(str(text), QueuedMessage)

    async def cancel(self, message_id: str) -> bool:
        """Delete a message; False if there is none. An attempt that has begun is not stopped."""
        deleted, _ = await self._redis.pipeline([["DEL", _message(message_id)], ["ZREM", QStashKeys.due, message_id]])
        return deleted == 1

    async def dead_letters(self, before: int, count: int) -> list[tuple[str, QueuedMessage, DeliveryResponse]]:
        """Return dead letters, newest first, without the `before` newest ones."""
        reply = await self._redis.command("ZREVRANGE", QStashKeys.dead, before, before + count - 1)
        ids = [str(each) for each in _items(reply)]
        found = [await self.dead_letter(each) for each in ids]
        return [(each, *letter) for each, letter in zip(ids, found, strict=True) if letter]

    async def dead_letter(self, message_id: str) -> tuple[QueuedMessage, DeliveryResponse] | None:
        """Return a dead letter and the last answer of its destination."""
        found = await self._redis.command("HMGET", QStashKeys.dead_message(message_id), "spec", "failure")
        spec, failure = _items(found)
        return (
            (_decode(str(spec), QueuedMessage), _decode(str(failure), DeliveryResponse)) if spec and failure else None
        )

    async def delete_dead_letter(self, message_id: str) -> bool:
        """Delete a dead letter; False if there is none."""
        deleted, _ = await self._redis.pipeline(
            [["DEL", QStashKeys.dead_message(message_id)], ["ZREM", QStashKeys.dead, message_id]]
        )
        return deleted == 1

    async def events(self, before: str | None, count: int) -> list[tuple[str, MessageEvent]]:
        """Return events with their stream ids, newest first, older than the id `before`."""
        end = "+" if before is None else f"({before}"
        entries = await self._redis.command("XREVRANGE", QStashKeys.events, end, "-", "COUNT", count)
        return [(str(each[0]), _decode(str(each[1][1]), MessageEvent)) for each in map(_items, _items(entries))]  # type: ignore[index]

    async def _call(
        self, script: Script, keys: Mapping[str, str], args: Mapping[str, Argument], more: Sequence[Argument] = ()
    ) -> Any:
        """Run a script with its keys and arguments by name; KeyError for a missing one."""
        key_values = [keys[name] if name in keys else getattr(QStashKeys, name) for name in script.keys]
        return await self._redis.script(script, key_values, [*(args[name] for name in script.args), *more])


def _message(message_id: str) -> str:
    return f"{QStashKeys.message_prefix}{message_id}"


def _items(reply: Reply) -> list[Reply]:
    return reply if isinstance(reply, list) else []


def _groups(flat: Any, size: int) -> list[Any]:
    return [flat[index : index + size] for index in range(0, len(flat), size)]


def _time(score: Reply) -> int | None:
    return None if score is None else int(float(str(score)))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _decode(text: str, kind: type[Any]) -> Any:
    return msgspec.json.decode(text, type=kind)
