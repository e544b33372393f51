"""Reads of runs, their logs and the queue, over REST and TCP alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from infra.contract import journal
from infra.contract.errors import FileMissing, RecordUnreadable, RunGone, StoreFull, StoreRejected
from infra.contract.files import FileEntry
from infra.contract.keys import Keys
from infra.contract.log import Event, RunLog
from infra.contract.queue import QueueDepths
from infra.contract.redis import Redis
from infra.contract.redis_store import codec
from infra.contract.runs import Attempt, Page, RunHead, RunRecord
from infra.contract.states import Status

MAX_SCAN = 1000
"""Most runs that one page looks at, so that a filter on a rare status costs a bounded number of commands."""
_LOG_ENTRIES = 64
"""Stream entries fetched per read: at 64 KB each, well below the 10 MB limit of a REST reply."""
_STEP_ENTRIES = 64
"""Steps fetched per read: at MAX_INLINE_BYTES each, well below the same limit."""


Run = TypeVar("Run", bound=RunHead)

UNDECODABLE = (msgspec.DecodeError, LookupError, ValueError)
"""Errors of the codec for a record that is damaged, or that a newer release has written."""


class RunReader:
    """Read side of the store.

    Every method raises StoreUnavailable if Redis did not reply in time, and RecordUnreadable for a damaged record.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self.keys = keys

    async def get(self, run_id: str) -> RunRecord:
        """Return the record of a run. Raises RunGone."""
        return await self._decoded(run_id, codec.RECORD_FIELDS, codec.decode_record)

    async def head(self, run_id: str) -> RunHead:
        """Return a run without its large fields. Raises RunGone."""
        return await self._decoded(run_id, codec.HEAD_FIELDS, codec.decode_head)

    async def is_made_by(self, run_id: str, digest: str) -> bool:
        """Return whether the run exists, was created by the request with this digest, and is not being deleted."""
        found = await self._redis.command("HMGET", self.keys.run(run_id), "digest", "condemned")
        return codec.items(found) == [digest, None]

    async def is_listed(self, user: str, run_id: str) -> bool:
        """Return whether the user's index of runs has the run."""
        return await self._redis.command("ZSCORE", self.keys.user_runs(user), run_id) is not None

    async def log(self, run_id: str) -> RunLog:
        """Return a run with the archived segments of its log. Raises RunGone."""
        return await self._decoded(run_id, codec.LOG_FIELDS, codec.decode_log)

    async def files(self, run_id: str) -> dict[str, FileEntry]:
        """Return the files of a run by path; none if there is no such run."""
        return codec.decode_files(await self._matching(run_id, codec.FILE_PREFIX))

    async def file(self, run_id: str, path: str) -> FileEntry:
        """Return one file of a run. Raises FileMissing."""
        text = await self._redis.command("HGET", self.keys.run(run_id), f"{codec.FILE_PREFIX}{path}")
        if text is None:
            raise FileMissing(f"there is no file '{path}'")
        return codec.decode_file(str(text))

    async def journal(self, run_id: str) -> dict[str, bytes]:
        """Return the journal of a run, key → JSON; empty if there is no such run."""
        return codec.decode_journal(await self._matching(run_id, journal.FIELD_PREFIX))

    async def step_entries(self, run_id: str, steps: Sequence[int]) -> list[bytes | None]:
        """Return the journal's entries of these steps as JSON; None for a step that is not completed."""
        found: list[bytes | None] = []
        for first in range(0, len(steps), _STEP_ENTRIES):
            keys = map(journal.step_key, steps[first : first + _STEP_ENTRIES])
            names = [f"{journal.FIELD_PREFIX}{key}" for key in keys]
            reply = await self._redis.command("HMGET", self.keys.run(run_id), *names)
            found += [None if value is None else str(value).encode() for value in codec.items(reply)]
        return found

    async def attempts(self, run_id: str) -> list[Attempt]:
        """Return the claims of a run, oldest first; none if there is no such run."""
        return codec.decode_attempts(await self._matching(run_id, codec.ATTEMPT_PREFIX))

    async def page(
        self,
        user: str,
        *,
        limit: int,
        before: tuple[int, str] | None = None,
        status: Status | None = None,
        error: str | None = None,
    ) -> Page:
        """Return a page of a user's runs, newest first, older than the cursor `before` (creation in ms, run id).

        `error` selects the runs that failed with this code. A page looks at MAX_SCAN runs at most, so with a filter it
        can be short and still have a cursor. Ids whose record has expired are removed from the index; ids whose record
        cannot be read are listed apart, so that they do not hide the other runs.
        """
        runs: list[RunHead] = []
        unreadable: list[str] = []
        cursor, scanned = before, 0
        while scanned < MAX_SCAN:
            found = await self._ids(user, cursor, limit)
            heads = await self._heads([run_id for _, run_id in found])
            if expired := [run_id for run_id, head in heads.items() if head is None]:
                await self._redis.command("ZREM", self.keys.user_runs(user), *expired)
            for position in found:
                head = heads[position[1]]
                cursor, scanned = position, scanned + 1
                if isinstance(head, RecordUnreadable):
                    unreadable.append(position[1])
                elif head and status in {None, head.status} and (error is None or _failed_with(head, error)):
                    runs.append(head)
                if len(runs) == limit:
                    return Page(runs=runs, cursor=cursor, unreadable=unreadable)
            if len(found) < limit:
                return Page(runs=runs, cursor=None, unreadable=unreadable)
        return Page(runs=runs, cursor=cursor, unreadable=unreadable)

    async def read(self, run_id: str, *, after: int) -> tuple[list[Event], bool]:
        """Return events from seq `after + 1` on, as many as one round trip fetches, and whether there may be more."""
        start = f"{after + 1}-0"
        reply = await self._redis.command("XRANGE", self.keys.log(run_id), start, "+", "COUNT", _LOG_ENTRIES)
        found = [event for event in codec.decode_entries(reply) if event.seq > after]
        return found, len(codec.items(reply)) == _LOG_ENTRIES

    async def read_back(self, run_id: str, *, before: int | None, entries: int) -> list[Event]:
        """Return the last events that Redis holds, or the last before seq `before`, in order.

        They are the events of up to `entries` stream entries, as many of them as one round trip fetches.
        """
        key, entries = self.keys.log(run_id), min(entries, _LOG_ENTRIES)
        if before is None:
            found = codec.items(await self._redis.command("XREVRANGE", key, "+", "-", "COUNT", entries))
        else:
            # The id of an entry is the number of its last event: the event before `before` may be in an entry with a
            # higher id.
            around, older = await self._redis.pipeline(
                [
                    ["XRANGE", key, f"{before - 1}-0", "+", "COUNT", 1],
                    ["XREVRANGE", key, f"{max(0, before - 2)}-0", "-", "COUNT", entries],
                ]
            )
            found = [*codec.items(around), *codec.items(older)]
        events = codec.decode_entries(found[::-1])
        return [event for event in events if before is None or event.seq < before]

    async def depths(self) -> QueueDepths:
        """Return the number of runs in each part of the queue."""
        keys = self.keys
        commands = [
            ["LLEN", keys.pending],
            *(["ZCARD", key] for key in (keys.ready, keys.delayed, keys.leases, keys.dead, keys.unreadable)),
        ]
        pending, ready, delayed, running, dead, unreadable = (int(str(n)) for n in await self._redis.pipeline(commands))
        return QueueDepths(
            pending=pending, ready=ready, delayed=delayed, running=running, dead=dead, unreadable=unreadable
        )

    async def ping(self) -> None:
        """Raise StoreUnavailable if Redis cannot be reached, StoreFull if it has no memory left for writes."""
        # Unlike INFO, PING is refused while Redis loads its data.
        await self._redis.command("PING")
        try:
            info = str(await self._redis.command("INFO", "memory"))
        except StoreRejected:
            # A user without the right to INFO, or a service without the command.
            return
        numbers = dict(line.partition(":")[::2] for line in info.splitlines())
        used, limit = (int(numbers.get(name, "0")) for name in ("used_memory", "maxmemory"))
        # With another policy, Redis evicts keys instead of refusing writes.
        if numbers.get("maxmemory_policy") == "noeviction" and 0 < limit <= used:
            raise StoreFull(f"Redis uses {used} bytes of memory; its limit is {limit}")

    async def _ids(self, user: str, before: tuple[int, str] | None, limit: int) -> list[tuple[int, str]]:
        """Return the next `limit` positions of the index, newest first; positions of the same ms by descending id."""
        top = before[0] if before else "+inf"
        positions: list[tuple[int, str]] = []
        offset = 0
        while len(positions) < limit:
            key = self.keys.user_runs(user)
            reply = await self._redis.command(
                "ZREVRANGEBYSCORE", key, top, "-inf", "WITHSCORES", "LIMIT", offset, limit
            )
            flat = [str(item) for item in codec.items(reply)]
            page = [(int(float(score)), run_id) for run_id, score in zip(flat[::2], flat[1::2], strict=True)]
            positions += [position for position in page if before is None or position < before]
            offset += limit
            if len(page) < limit:
                break
        return positions[:limit]

    async def _heads(self, run_ids: Sequence[str]) -> dict[str, RunHead | RecordUnreadable | None]:
        """Return each run by its id: without its large fields, or the error; None if the record has expired."""
        if not run_ids:
            return {}
        commands = [["HMGET", self.keys.run(run_id), *codec.HEAD_FIELDS] for run_id in run_ids]
        try:
            replies = await self._redis.pipeline(commands)
        except StoreRejected:
            # A pipeline raises the first error only: one key that holds no hash must not hide the other runs.
            return {run_id: await self._head_or_error(run_id) for run_id in run_ids}
        heads: dict[str, RunHead | RecordUnreadable | None] = {}
        for run_id, reply in zip(run_ids, replies, strict=True):
            fields = codec.named(reply, codec.HEAD_FIELDS)
            try:
                heads[run_id] = codec.decode_head(fields) if fields else None
            except UNDECODABLE as exc:
                heads[run_id] = _unreadable(run_id, exc)
        return heads

    async def _head_or_error(self, run_id: str) -> RunHead | RecordUnreadable | None:
        try:
            return await self.head(run_id)
        except RunGone:
            return None
        except RecordUnreadable as exc:
            return exc

    async def _decoded(
        self, run_id: str, names: Sequence[str], decode: Callable[[Mapping[str, str | None]], Run]
    ) -> Run:
        """Fetch and decode a record. Raises RunGone, RecordUnreadable."""
        try:
            reply = await self._redis.command("HMGET", self.keys.run(run_id), *names)
        except StoreRejected as exc:
            raise _unreadable(run_id, exc) from exc
        fields = codec.named(reply, names)
        if fields is None:
            raise RunGone(f"there is no run '{run_id}'")
        try:
            return decode(fields)
        except UNDECODABLE as exc:
            raise _unreadable(run_id, exc) from exc

    async def _matching(self, run_id: str, prefix: str) -> dict[str, str]:
        """Return the fields of a run's hash whose names begin with `prefix`."""
        found: dict[str, str] = {}
        key, cursor = self.keys.run(run_id), "0"
        while True:
            reply = await self._redis.command("HSCAN", key, cursor, "MATCH", f"{prefix}*", "COUNT", 1000)
            cursor, fields = str(codec.items(reply)[0]), codec.items(reply)[1]
            found |= codec.pairs(fields)
            if cursor == "0":
                return found


def _failed_with(run: RunHead, code: str) -> bool:
    return run.error is not None and run.error.code == code


def _unreadable(run_id: str, cause: Exception) -> RecordUnreadable:
    """Return the error for a record; the cause is named by its type alone, because its text may hold a user's data."""
    reason = f"it is damaged, or a newer release has written it ({type(cause).__name__})"
    return RecordUnreadable(f"the record of run '{run_id}' cannot be read: {reason}")
