"""Reads of runs, their logs and the queue, over REST and TCP alike."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from infra.contract import journal
from infra.contract.errors import FileMissing, RecordUnreadable, RunGone, StoreRejected
from infra.contract.files import FILE_PREFIX, FileEntry, FolderEntry, Inputs
from infra.contract.keys import EXPIRIES, OVERDUE_EVENTS, Keys
from infra.contract.lending import OpenExecution
from infra.contract.log import Event, RunLog
from infra.contract.queue import QueueDepths
from infra.contract.redis import Argument, Redis, Reply
from infra.contract.redis_store import codec
from infra.contract.requests import UserMessage
from infra.contract.runs import Attempt, RunHead, RunRecord
from infra.contract.states import TERMINAL, Status

_LOG_ENTRIES = 64
"""Stream entries fetched per read: at 64 KB each, well below the 10 MB limit of a REST reply."""
_STEP_ENTRIES = 64
"""Steps fetched per read: at MAX_INLINE_BYTES each, well below the same limit."""


Decoded = TypeVar("Decoded")

UNDECODABLE = (msgspec.DecodeError, LookupError, ValueError, TypeError, OverflowError, RecursionError)
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

    async def log(self, run_id: str) -> RunLog:
        """Return a run with the archived segments of its log. Raises RunGone."""
        return await self._decoded(run_id, codec.LOG_FIELDS, codec.decode_log)

    async def files(self, run_id: str) -> dict[str, FileEntry]:
        """Return the files of a run by path; none if there is no such run."""
        with readable(run_id):
            return codec.decode_files(await self._matching(run_id, FILE_PREFIX))

    async def folders(self, run_id: str) -> dict[str, FolderEntry]:
        """Return the folders of a run that no file implies, by path; none if there is no such run."""
        with readable(run_id):
            return codec.decode_folders(await self._matching(run_id, codec.FOLDER_PREFIX))

    async def file(self, run_id: str, path: str) -> FileEntry:
        """Return one file of a run. Raises FileMissing."""
        with readable(run_id):
            text = await self._redis.command("HGET", self.keys.run(run_id), f"{FILE_PREFIX}{path}")
            if text is None:
                raise FileMissing(f"there is no file '{path}'")
            return codec.decode_file(str(text))

    async def inputs(self, run_id: str) -> Inputs:
        """Return the input files of a run. Raises RunGone."""
        return await self._decoded(run_id, codec.INPUT_FIELDS, codec.decode_inputs)

    async def journal(self, run_id: str) -> dict[str, bytes]:
        """Return the journal of a run, key → JSON; empty if there is no such run."""
        with readable(run_id):
            return codec.decode_journal(await self._matching(run_id, journal.FIELD_PREFIX))

    async def open_execution(self, run_id: str) -> int | None:
        """Return the number of the open execution of a run; None if it has none, has ended, or is being deleted."""
        names = ("status", "condemned", f"{journal.FIELD_PREFIX}{journal.EXECUTION}")
        with readable(run_id):
            status, condemned, text = codec.items(await self._redis.command("HMGET", self.keys.run(run_id), *names))
            if text is None or condemned is not None or status is None or Status(str(status)) in TERMINAL:
                return None
            return msgspec.json.decode(str(text), type=OpenExecution).number

    async def running_fence(self, run_id: str) -> int | None:
        """Return the fence of the claim under which a run is being worked on; None if no worker has the run."""
        names = ("status", "condemned", "fence")
        with readable(run_id):
            status, condemned, fence = codec.items(await self._redis.command("HMGET", self.keys.run(run_id), *names))
            if fence is None or condemned is not None or str(status) != Status.RUNNING:
                return None
            return int(str(fence))

    async def step_entries(self, run_id: str, steps: Sequence[int]) -> list[bytes | None]:
        """Return the journal's entries of these steps as JSON; None for a step that is not completed."""
        found: list[bytes | None] = []
        with readable(run_id):
            for first in range(0, len(steps), _STEP_ENTRIES):
                keys = map(journal.step_key, steps[first : first + _STEP_ENTRIES])
                names = [f"{journal.FIELD_PREFIX}{key}" for key in keys]
                reply = await self._redis.command("HMGET", self.keys.run(run_id), *names)
                found += [None if value is None else str(value).encode() for value in codec.items(reply)]
        return found

    async def call_entries(self, run_id: str, *, most: int) -> dict[tuple[int, int], bytes]:
        """Return the journal's entries of an agent's calls as JSON, by position, in order; the first `most` ones."""
        # Names alone: a reply with the values of several hundred calls could be too large.
        found: dict[tuple[int, int], bytes] = {}
        with readable(run_id):
            fields = codec.items(await self._redis.command("HKEYS", self.keys.run(run_id)))
            names = [str(field) for field in fields if str(field).startswith(f"{journal.FIELD_PREFIX}tool:")]
            places = [(journal.call_position(name.removeprefix(journal.FIELD_PREFIX)), name) for name in names]
            wanted = sorted((place, name) for place, name in places if place)[:most]
            for first in range(0, len(wanted), _STEP_ENTRIES):
                chunk = wanted[first : first + _STEP_ENTRIES]
                reply = await self._redis.command("HMGET", self.keys.run(run_id), *(name for _, name in chunk))
                values = zip(chunk, codec.items(reply), strict=True)
                found |= {place: str(value).encode() for (place, _), value in values if value is not None}
        return found

    async def messages(self, run_id: str, *, after: int, last: int) -> list[UserMessage]:
        """Return the unread messages to a run with the numbers `after + 1` to `last`, oldest first."""
        names = [f"{codec.MESSAGE_PREFIX}{number}" for number in range(after + 1, last + 1)]
        with readable(run_id):
            values = codec.items(await self._redis.command("HMGET", self.keys.run(run_id), *names)) if names else []
            return codec.decode_messages(
                {name: None if value is None else str(value) for name, value in zip(names, values, strict=True)}
            )

    async def attempts(self, run_id: str) -> list[Attempt]:
        """Return the claims of a run, oldest first; none if there is no such run."""
        with readable(run_id):
            return codec.decode_attempts(await self._matching(run_id, codec.ATTEMPT_PREFIX))

    async def read(self, run_id: str, *, after: int) -> tuple[list[Event], bool]:
        """Return events from seq `after + 1` on, as many as one round trip fetches, and whether there may be more."""
        start = f"{after + 1}-0"
        with readable(run_id):
            reply = await self._redis.command("XRANGE", self.keys.log(run_id), start, "+", "COUNT", _LOG_ENTRIES)
            found = [event for event in codec.decode_entries(reply) if event.seq > after]
            return found, len(codec.items(reply)) == _LOG_ENTRIES

    async def read_back(self, run_id: str, *, before: int | None, entries: int) -> list[Event]:
        """Return the last events that Redis holds, or the last before seq `before`, in order.

        They are the events of up to `entries` stream entries, as many of them as one round trip fetches.
        """
        with readable(run_id):
            events = codec.decode_entries(await self._last_entries(run_id, before, min(entries, _LOG_ENTRIES)))
        return [event for event in events if before is None or event.seq < before]

    async def _last_entries(self, run_id: str, before: int | None, entries: int) -> list[Reply]:
        """Return stream entries, oldest first, for `read_back`."""
        key = self.keys.log(run_id)
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
        return found[::-1]

    async def depths(self) -> QueueDepths:
        """Return the number of runs in each part of the queue."""
        keys = self.keys
        commands = [
            ["LLEN", keys.pending],
            *(["ZCARD", key] for key in (keys.ready, keys.delayed, keys.leases, keys.dead, keys.unreadable)),
            ["ZCARD", keys.waiting],
            ["ZMSCORE", keys.delayed, EXPIRIES, OVERDUE_EVENTS],
        ]
        *counts, others, time = await self._redis.pipeline([*commands, ["TIME"]])
        now_ms = int(str(codec.items(time)[0])) * 1000
        workers = await self._redis.command("ZCOUNT", keys.workers, f"({now_ms}", "+inf")
        pending, ready, delayed, running, dead, unreadable, waiting = (int(str(count)) for count in counts)
        return QueueDepths(
            pending=pending,
            ready=ready,
            delayed=delayed - sum(score is not None for score in codec.items(others)),
            running=running,
            dead=dead,
            unreadable=unreadable,
            waiting=waiting,
            workers=int(str(workers)),
        )

    async def ping(self) -> None:
        """Raise what a request that changes something would raise: StoreUnavailable, StoreRefuses, StoreFull."""
        # A command that may write, because a replica, a full memory or a disk that cannot be written to refuse nothing
        # else. The key never exists, and XX sets only a key that does.
        await self._redis.command("SET", self.keys.probe, "", "XX")

    async def _decoded(
        self, run_id: str, names: Sequence[str], decode: Callable[[Mapping[str, str | None]], Decoded]
    ) -> Decoded:
        """Fetch and decode a record. Raises RunGone, RecordUnreadable."""
        with readable(run_id):
            fields = named(await self._redis.command("HMGET", self.keys.run(run_id), *names), names, run_id)
            if fields is None:
                raise RunGone(f"there is no run '{run_id}'")
            return decode(fields)

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


def named(values: Reply, names: Iterable[str], run_id: str) -> dict[str, str | None] | None:
    """Return the fields of an HMGET reply that asked for `names`; None if none is set but the mark of a deletion.

    Raises LookupError if they are not those of the run.
    """
    fields = {
        name: None if value is None else str(value) for name, value in zip(names, codec.items(values), strict=True)
    }
    if not any(value for name, value in fields.items() if name != "condemned"):
        return None
    if fields["id"] != run_id:
        raise LookupError("the record has no id, or that of another run")
    return fields


async def replies_or_none(redis: Redis, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
    """Return the replies to reads, None for one that is rejected: a key of another type must not hide the others."""
    try:
        return await redis.pipeline(commands) if commands else []
    except StoreRejected:  # the first error, and no reply
        return [await _reply_or_none(redis, command) for command in commands]


async def _reply_or_none(redis: Redis, command: Sequence[Argument]) -> Reply:
    try:
        return await redis.command(*command)
    except StoreRejected as exc:
        if not is_damage(exc):
            raise
        return None


@contextmanager
def readable(record_id: str, noun: str = "run") -> Iterator[None]:
    """Raise RecordUnreadable if what Redis holds of the record has a wrong type, or cannot be decoded."""
    try:
        yield
    except (StoreRejected, *UNDECODABLE) as exc:
        if isinstance(exc, StoreRejected) and not is_damage(exc):
            raise
        raise unreadable_record(record_id, exc, noun) from exc


def is_damage(rejected: StoreRejected) -> bool:
    """Return whether a command was rejected because of what a key holds, and not for a lack of rights, or a quota."""
    text = str(rejected)
    if "ACL failure in script" in text:
        return False
    return any(part in text for part in ("WRONGTYPE", "not UTF-8", "user_script:"))


def unreadable_record(record_id: str, cause: Exception, noun: str = "run") -> RecordUnreadable:
    """Return the error for a record; the cause is named by its type alone, because its text may hold a user's data."""
    reason = f"it is damaged, or a newer release has written it ({type(cause).__name__})"
    return RecordUnreadable(f"the record of {noun} '{record_id}' cannot be read: {reason}")
