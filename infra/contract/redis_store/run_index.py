"""Index of a user's runs: lists in pages, selected by filters; and the usage of these runs by day."""

from collections.abc import Sequence
from datetime import date, timedelta

from infra.contract.errors import RecordUnreadable
from infra.contract.redis import Argument
from infra.contract.redis_store import codec, scripts, usage_sums
from infra.contract.redis_store.id_index import read_index
from infra.contract.redis_store.reader import UNDECODABLE, named, readable, replies_or_none
from infra.contract.redis_store.run_writer import RunWriter
from infra.contract.runs import Page, RunFilter, RunHead
from infra.contract.usage import DAY_S, EPOCH, RunUsage

MAX_SCAN = 1000
"""Most runs that one page looks at, so that a filter on a rare status costs a bounded number of commands."""
_CHUNK = 100
"""Runs fetched at a time while a filter is applied to their records: few round trips for a small page."""

_LARGEST_MS = 2.0**53
_EVERY_RUN = RunFilter()
_FORGET = scripts.load("forget")


class RunIndex(RunWriter):
    """Lists of a user's runs, and all reads of single runs; errors as there."""

    async def is_listed(self, user: str, run_id: str) -> bool:
        """Return whether the user's index of runs has the run."""
        return await self._redis.command("ZSCORE", self.keys.user_runs(user), run_id) is not None

    async def page(
        self, user: str, *, limit: int, before: tuple[int, str] | None = None, wanted: RunFilter = _EVERY_RUN
    ) -> Page:
        """Return a page of a user's runs, newest first, older than the cursor `before` (creation in ms, run id).

        The order never changes, so pages are disjoint whatever happens to the runs meanwhile, and a run that matches
        all the time is on one of them. A page looks at MAX_SCAN runs at most: with a filter it can be short, not
        `complete`, and have a cursor. Ids whose record has expired are removed from the index; ids whose record cannot
        be read are listed apart, so that they do not hide the other runs.
        """
        runs: list[RunHead] = []
        unreadable: list[str] = []
        cursor, scanned = before, 0
        while scanned < MAX_SCAN:
            asked_for = min(max(limit, _CHUNK) if wanted.reads_records else limit, MAX_SCAN - scanned)
            found = await self._positions(user, cursor, wanted, asked_for)
            heads = await self._heads([run_id for _, run_id in found])
            if expired := [run_id for run_id, head in heads.items() if head is None]:
                await self._scripts.call(_FORGET, user=user, more_args=expired)
            for position in found:
                head = heads[position[1]]
                cursor, scanned = position, scanned + 1
                if isinstance(head, RecordUnreadable):
                    unreadable.append(position[1])
                elif head and wanted.matches(head):
                    runs.append(head)
                if len(runs) == limit:
                    return Page(runs=runs, cursor=cursor, unreadable=unreadable)
            if len(found) < asked_for:
                return Page(runs=runs, cursor=None, unreadable=unreadable)
        return Page(runs=runs, cursor=cursor, unreadable=unreadable, complete=False)

    async def usage(self, user: str, days: int) -> dict[date, RunUsage | None]:
        """Return the usage of models in a user's runs on each of the last UTC days that has some, newest first.

        The present day is the first of `days`, by Redis's clock. Runs that have been deleted are included. None for a
        day whose sums are damaged.
        """
        seconds = int(str(codec.items(await self._redis.command("TIME"))[0]))
        today = EPOCH + timedelta(days=seconds // DAY_S)
        found: dict[date, RunUsage | None] = {}
        for first in range(0, days, _CHUNK):
            chunk = [today - timedelta(days=index) for index in range(first, min(first + _CHUNK, days))]
            replies = await replies_or_none(self._redis, [["HGETALL", self.keys.usage(user, day)] for day in chunk])
            for day, reply in zip(chunk, replies, strict=True):
                try:
                    if sums := codec.pairs(reply):
                        found[day] = usage_sums.decode({name: int(value) for name, value in sums.items()})
                except UNDECODABLE:
                    found[day] = None
        return found

    async def _positions(
        self, user: str, before: tuple[int, str] | None, wanted: RunFilter, limit: int
    ) -> list[tuple[int, str]]:
        """Return the next `limit` positions of the index, newest first; positions of the same ms by descending id."""
        after_ms, before_ms = wanted.created_after, wanted.created_before
        oldest: Argument = "-inf" if after_ms is None else f"({after_ms}"
        newest: Argument = "+inf" if before_ms is None else f"({before_ms}"
        index = self.keys.user_runs(user)
        command = ["ZREVRANGEBYSCORE", index]
        commands: list[list[Argument]] = []
        if before is not None and (before_ms is None or before[0] < before_ms):
            # The runs of the cursor's own ms, which may lie on both sides of it, are read apart and as a whole: an
            # offset would skip a run if another one were deleted between two reads.
            if after_ms is None or before[0] > after_ms:
                commands.append([*command, before[0], before[0], "WITHSCORES"])
            newest = f"({before[0]}"
        commands.append([*command, newest, oldest, "WITHSCORES", "LIMIT", 0, limit])
        replies = await read_index(self._scripts, index, lambda: self._redis.pipeline(commands))
        flat = [str(item) for reply in replies for item in codec.items(reply)]
        positions = [(_ms(score), run_id) for run_id, score in zip(flat[::2], flat[1::2], strict=True)]
        return [position for position in positions if before is None or position < before][:limit]

    async def _heads(self, run_ids: Sequence[str]) -> dict[str, RunHead | RecordUnreadable | None]:
        """Return each run by its id: without its large fields, or the error; None if the record has expired."""
        commands = [["HMGET", self.keys.run(run_id), *codec.HEAD_FIELDS] for run_id in run_ids]
        heads: dict[str, RunHead | RecordUnreadable | None] = {}
        for run_id, reply in zip(run_ids, await replies_or_none(self._redis, commands), strict=True):
            try:
                with readable(run_id):
                    fields = named(reply, codec.HEAD_FIELDS, run_id)
                    heads[run_id] = codec.decode_head(fields) if fields else None
            except RecordUnreadable as exc:
                heads[run_id] = exc
        return heads


def _ms(score: str) -> int:
    """Return a score of the index. A damaged one may be infinite, which no cursor can hold."""
    return int(max(-_LARGEST_MS, min(float(score), _LARGEST_MS)))
