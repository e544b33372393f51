"""All reads of runs, their logs and the queue. Works over REST and TCP alike."""

from collections.abc import Sequence

from infra.contract import codec
from infra.contract.errors import FileMissing, RunGone
from infra.contract.keys import Keys
from infra.contract.models import Attempt, Event, FileEntry, Page, QueueDepths, RunHead, RunLog, RunRecord
from infra.contract.ports import Redis
from infra.contract.states import Status

MAX_SCAN = 1000
"""A page of runs looks at no more than so many runs, so that a rare status costs a bounded number of commands."""
_LOG_ENTRIES = 64
"""Stream entries a read fetches at once: at 64 KB each, well below the 10 MB of a REST answer."""


class RunReader:
    """Every method raises StoreUnavailable if Redis did not answer in time."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self.keys = keys

    async def get(self, run_id: str) -> RunRecord:
        """The record of a run. Raises RunGone."""
        return codec.decode_record(await self._fields(run_id, codec.RECORD_FIELDS))

    async def head(self, run_id: str) -> RunHead:
        """A run without what can be large. Raises RunGone."""
        return codec.decode_head(await self._fields(run_id, codec.HEAD_FIELDS))

    async def is_made_by(self, run_id: str, digest: str) -> bool:
        """Whether the run stands, was created by the request with this digest, and is not being deleted."""
        found = await self._redis.command("HMGET", self.keys.run(run_id), "digest", "condemned")
        return codec.items(found) == [digest, None]

    async def log(self, run_id: str) -> RunLog:
        """A run, and what of its log is in the archive. Raises RunGone."""
        return codec.decode_log(await self._fields(run_id, codec.LOG_FIELDS))

    async def files(self, run_id: str) -> dict[str, FileEntry]:
        """The files of a run by path; empty if there is no such run."""
        return codec.decode_files(await self._matching(run_id, codec.FILE_PREFIX))

    async def file(self, run_id: str, path: str) -> FileEntry:
        """One file of a run. Raises FileMissing."""
        text = await self._redis.command("HGET", self.keys.run(run_id), f"{codec.FILE_PREFIX}{path}")
        if text is None:
            raise FileMissing(f"there is no file '{path}'")
        return codec.decode_file(str(text))

    async def journal(self, run_id: str) -> dict[str, bytes]:
        """The journal of a run: key → JSON; empty if there is no such run."""
        return codec.decode_journal(await self._matching(run_id, codec.JOURNAL_PREFIX))

    async def attempts(self, run_id: str) -> list[Attempt]:
        """The claims of a run, oldest first; empty if there is no such run."""
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
        """A user's runs, newest first, those after the cursor `before` (creation in ms, run id).

        `error`: only those that failed with this code. Looks at no more than MAX_SCAN runs: if few are wanted, a page
        can be short and still have a cursor. Ids whose record has expired leave the index.
        """
        runs: list[RunHead] = []
        cursor, scanned = before, 0
        while scanned < MAX_SCAN:
            found = await self._ids(user, cursor, limit)
            heads, gone = await self._heads([run_id for _, run_id in found])
            if gone:
                await self._redis.command("ZREM", self.keys.user_runs(user), *gone)
            for place in found:
                head = heads.get(place[1])
                cursor, scanned = place, scanned + 1
                if head and status in {None, head.status} and (error is None or _failed_with(head, error)):
                    runs.append(head)
                if len(runs) == limit:
                    return Page(runs=runs, cursor=cursor)
            if len(found) < limit:
                return Page(runs=runs, cursor=None)
        return Page(runs=runs, cursor=cursor)

    async def read(self, run_id: str, *, after: int) -> tuple[list[Event], bool]:
        """What one round trip brings of the log in Redis from `after + 1` on, and whether there may be more."""
        start = f"{after + 1}-0"
        reply = await self._redis.command("XRANGE", self.keys.log(run_id), start, "+", "COUNT", _LOG_ENTRIES)
        found = [event for event in codec.decode_entries(reply) if event.seq > after]
        return found, len(codec.items(reply)) == _LOG_ENTRIES

    async def depths(self) -> QueueDepths:
        """How many runs stand where."""
        keys = self.keys
        commands = [
            ["LLEN", keys.pending],
            *(["ZCARD", key] for key in (keys.ready, keys.delayed, keys.leases, keys.dead)),
        ]
        pending, ready, delayed, running, dead = (int(str(n)) for n in await self._redis.pipeline(commands))
        return QueueDepths(pending=pending, ready=ready, delayed=delayed, running=running, dead=dead)

    async def ping(self) -> None:
        """Raise StoreUnavailable if Redis cannot be reached."""
        await self._redis.command("PING")

    async def _ids(self, user: str, before: tuple[int, str] | None, limit: int) -> list[tuple[int, str]]:
        """The next `limit` places of the index, newest first; places of one ms are in falling order of their ids."""
        top = before[0] if before else "+inf"
        places: list[tuple[int, str]] = []
        offset = 0
        while len(places) < limit:
            key = self.keys.user_runs(user)
            reply = await self._redis.command(
                "ZREVRANGEBYSCORE", key, top, "-inf", "WITHSCORES", "LIMIT", offset, limit
            )
            flat = [str(item) for item in codec.items(reply)]
            page = [(int(float(score)), run_id) for run_id, score in zip(flat[::2], flat[1::2], strict=True)]
            places += [place for place in page if before is None or place < before]
            offset += limit
            if len(page) < limit:
                break
        return places[:limit]

    async def _heads(self, run_ids: Sequence[str]) -> tuple[dict[str, RunHead], list[str]]:
        """Those runs that are still kept, and the ids of those that are not."""
        if not run_ids:
            return {}, []
        commands = [["HMGET", self.keys.run(run_id), *codec.HEAD_FIELDS] for run_id in run_ids]
        replies = await self._redis.pipeline(commands)
        kept = [fields for reply in replies if (fields := codec.named(reply, codec.HEAD_FIELDS))]
        heads = {head.id: head for head in map(codec.decode_head, kept)}
        return heads, [run_id for run_id in run_ids if run_id not in heads]

    async def _matching(self, run_id: str, prefix: str) -> dict[str, str]:
        """The fields of a run's hash that begin with `prefix`."""
        found: dict[str, str] = {}
        key, cursor = self.keys.run(run_id), "0"
        while True:
            reply = await self._redis.command("HSCAN", key, cursor, "MATCH", f"{prefix}*", "COUNT", 1000)
            cursor, fields = str(codec.items(reply)[0]), codec.items(reply)[1]
            found |= codec.pairs(fields)
            if cursor == "0":
                return found

    async def _fields(self, run_id: str, names: Sequence[str]) -> dict[str, str | None]:
        fields = codec.named(await self._redis.command("HMGET", self.keys.run(run_id), *names), names)
        if fields is None:
            raise RunGone(f"there is no run '{run_id}'")
        return fields


def _failed_with(run: RunHead, code: str) -> bool:
    return run.error is not None and run.error.code == code
