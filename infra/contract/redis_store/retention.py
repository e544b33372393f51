"""What the sweeper of the object store asks Redis: which runs are gone, and which objects a record names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from infra.contract import journal
from infra.contract.keys import Keys
from infra.contract.log import Segment
from infra.contract.redis import Redis
from infra.contract.redis_store import codec, scripts
from infra.contract.redis_store.reader import RunReader, readable
from infra.contract.states import TERMINAL, Outcome

TOMBSTONE_S = 3600
"""Longest time for which an interrupted sweep keeps the id of an expired run from being used again."""

_TOMBSTONE, _DELETE = map(scripts.load, ("tombstone", "delete"))
_OBJECT = re.compile(r"(?:files|kept)/.+", re.DOTALL)
_segments = msgspec.json.Decoder(list[Segment])


@dataclass(frozen=True)
class NamedObjects:
    """Objects that the record of an ended run names, by their keys without the run's prefix.

    `lists`: those of `names` that are blobs with changes of files, which name further objects.
    """

    names: frozenset[str]
    lists: Sequence[str]


@dataclass(frozen=True)
class SweepState:
    """State of the sweeper. `position`: last object key of the pass under way, which began at `began_ms`; empty: none.

    `swept_ms`: begin of the last complete pass, in ms since the epoch; 0: there was none.
    """

    position: str = ""
    began_ms: int = 0
    swept_ms: int = 0


class RetentionStore(RunReader):
    """Redis as the sweeper sees it. Methods raise StoreUnavailable; the scripts are safe to repeat."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        super().__init__(redis, keys)
        self._scripts = scripts.ScriptCaller(redis, keys)

    async def missing(self, run_ids: Sequence[str]) -> set[str]:
        """Return those of the runs that have no record. Costs one command if all have one."""
        keys = [self.keys.run(run_id) for run_id in run_ids]
        if not keys or await self._redis.command("EXISTS", *keys) == len(keys):
            return set()
        found = await self._redis.pipeline([["EXISTS", key] for key in keys])
        return {run_id for run_id, exists in zip(run_ids, found, strict=True) if exists == 0}

    async def named_objects(self, run_id: str) -> NamedObjects | None:
        """Return the objects that the record of an ended run names.

        None if the run has not ended, is gone or being deleted. Raises RecordUnreadable.
        """
        key = self.keys.run(run_id)
        with readable(run_id):
            status, deleting = codec.items(await self._redis.command("HMGET", key, "status", "condemned"))
            if deleting is not None or status not in {each.value for each in TERMINAL}:
                return None
            fields = codec.pairs(await self._redis.command("HGETALL", key))
            # A retry may have come in between.
            if fields.get("status") != status or "condemned" in fields:
                return None
            return _named_by(fields)

    async def bury(self, user: str, run_id: str) -> bool:
        """Keep the id of an expired run from being used. Returns False if there is a run with this id."""
        reply = await self._scripts.call(_TOMBSTONE, {"ttl_s": TOMBSTONE_S}, run_id=run_id, user=user)
        return Outcome(str(codec.items(reply)[0])) is not Outcome.REFUSED

    async def unbury(self, user: str, run_id: str) -> None:
        """Allow the id to be used again."""
        await self._scripts.call(_DELETE, run_id=run_id, user=user)

    async def store_id(self) -> str | None:
        """Return the id of this Redis, None if it has none yet."""
        found = await self._redis.command("HGET", self.keys.sweep, "store")
        return None if found is None else str(found)

    async def set_store_id(self, store_id: str) -> None:
        """Give this Redis an id, unless it has one."""
        await self._redis.command("HSETNX", self.keys.sweep, "store", store_id)

    async def state(self) -> SweepState:
        """Return the state that the last sweep has left."""
        reply = await self._redis.command("HMGET", self.keys.sweep, "position", "began_ms", "swept_ms")
        position, began, swept = (None if value is None else str(value) for value in codec.items(reply))
        return SweepState(position or "", int(began or 0), int(swept or 0))

    async def save(self, state: SweepState) -> None:
        """Keep the state for the next sweep."""
        values = ("position", state.position, "began_ms", state.began_ms, "swept_ms", state.swept_ms)
        await self._redis.command("HSET", self.keys.sweep, *values)


def names_in(text: str | bytes) -> Iterator[str]:
    """Yield all strings in a JSON text that may be object keys. Raises UNDECODABLE if it is no JSON, or too deep."""
    yield from _strings(msgspec.json.decode(text))


def _named_by(fields: Mapping[str, str]) -> NamedObjects:
    """Return the objects that the fields of a run's hash name, and some that they do not. Raises UNDECODABLE."""
    names: set[str] = set()
    lists: list[str] = []
    for field, text in fields.items():
        if _may_name(text):
            names.update(names_in(text))
        if field.startswith(journal.FIELD_PREFIX) and field.endswith(":files"):
            ref = journal.blob_ref(text.encode())
            lists += [ref.name] if ref else []
    created_ms = int(fields["created_ms"])
    names.update(segment.object_name(created_ms) for segment in _segments.decode(fields.get("segments", "[]")))
    return NamedObjects(frozenset(names), lists)


def _may_name(text: str) -> bool:
    """Return whether a text may hold object keys. JSON may escape the slash; texts without a slash hold none."""
    return "/" in text and ("files" in text or "kept" in text)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if _OBJECT.fullmatch(value):
            yield value
        elif _may_name(value):  # some fields hold JSON texts inside JSON
            try:
                yield from names_in(value)
            except msgspec.DecodeError:
                return  # a prompt, or the argument of a tool
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
