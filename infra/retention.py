"""Sweeper: deletes the objects of runs whose records have expired, and objects that no record names.

Redis deletes a record after its retention, but stores such as Exoscale's have no rules by which objects expire. A pass
lists the bucket in the order of keys, and looks at each run that has objects older than `min_age_ms`:

| run | objects that are deleted, if they are older |
|---|---|
| has no record | all |
| has ended | those that the record does not name: what lost workers stored, and uploads that were replaced |
| any other | none |

An object is stored before a record names it; `min_age_ms` must be longer than the time in between. So younger objects
are never deleted. The ids of expired runs are kept from being used while their objects are deleted; if that deletion is
interrupted, a pass after TOMBSTONE_S completes it.

Every step can be repeated, so two passes at the same time do no harm, and a pass that was interrupted continues after
the last page that it completed. An ended run is looked at once after its last object was stored: a pass visits only
those whose last object became old enough since the pass before began. So what a run of more than `min_age_ms` leaves
unnamed may stay until the run expires, if it stores nothing at its end.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from infra.contract.errors import ContractError, FileMissing, FilesUnavailable, RecordUnreadable
from infra.contract.redis_store.reader import UNDECODABLE
from infra.contract.redis_store.retention import RetentionStore, SweepState, names_in
from infra.logging import log

MIN_AGE_MS = 24 * 3600 * 1000
REQUESTS_PER_S = 20.0
RUNS_PER_CHECK = 100
DELETED_AT_ONCE = 1000
MAX_GROUP = 50_000
"""Objects of a run that are looked at together, so that a run with millions of them needs no more memory."""


class SweepRefused(ContractError):
    """Redis and the bucket do not seem to belong together."""


class SweepableObject(Protocol):
    """Object in a listing of the store; `modified_ms` by the clock of the store."""

    @property
    def key(self) -> str:
        """Key in the bucket."""
        ...

    @property
    def size_bytes(self) -> int:
        """Size."""
        ...

    @property
    def modified_ms(self) -> int:
        """Time when the object was stored."""
        ...


class StoredObjects(Protocol):
    """Port to all objects of the bucket. Methods raise FilesUnavailable."""

    async def page(self, after: str) -> Sequence[SweepableObject]:
        """Return the next objects after the key `after`, in the order of keys; none at the end."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, if they exist."""
        ...

    async def read(self, key: str) -> bytes:
        """Return the bytes of an object. Raises FileMissing."""
        ...

    async def store_id(self) -> str | None:
        """Return the id of the Redis to which the bucket belongs; None if none is noted."""
        ...

    async def set_store_id(self, store_id: str) -> None:
        """Note the id of the Redis to which the bucket belongs."""
        ...


@dataclass
class Report:
    """Numbers of one pass. `unreadable`: ended runs whose records cannot be read completely, so nothing was deleted."""

    objects: int = 0
    expired_runs: int = 0
    expired_objects: int = 0
    expired_bytes: int = 0
    unnamed_objects: int = 0
    unnamed_bytes: int = 0
    unreadable: int = 0


@dataclass
class _RunObjects:
    """Objects of one run, in the order of keys. `prefix` ends with a slash."""

    user: str
    run_id: str
    prefix: str
    objects: list[SweepableObject] = field(default_factory=list)

    def older(self, than_ms: int) -> list[SweepableObject]:
        return [each for each in self.objects if each.modified_ms <= than_ms]

    @property
    def newest_ms(self) -> int:
        return max(each.modified_ms for each in self.objects)


class Sweeper:
    """One pass over the bucket. `now` returns ms since the epoch. With `dry_run`, the pass only counts."""

    def __init__(
        self,
        store: RetentionStore,
        objects: StoredObjects,
        *,
        min_age_ms: int = MIN_AGE_MS,
        requests_per_s: float = REQUESTS_PER_S,
        dry_run: bool = False,
        now: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._store = store
        self._objects = objects
        self._min_age_ms = min_age_ms
        self._pause_s = 1 / requests_per_s
        self._dry_run = dry_run
        self._now = now
        self._report = Report()

    async def sweep(self) -> Report:
        """Sweep the bucket once, from where an interrupted pass ended.

        Raises SweepRefused, FilesUnavailable, StoreUnavailable; the next pass continues there.
        """
        self._report = Report()
        await self._check_pair()
        state = SweepState() if self._dry_run else await self._store.state()
        began_ms = state.began_ms if state.position else self._now()
        async for runs in self._batches(state.position):
            await self._sweep(runs, after_ms=state.swept_ms)
            await self._save(SweepState(runs[-1].objects[-1].key, began_ms, state.swept_ms))
        await self._save(SweepState(swept_ms=began_ms))
        return self._report

    async def _check_pair(self) -> None:
        """Raise SweepRefused unless the records in Redis are those of the objects in the bucket.

        With the Redis of another installation, all runs would seem to have expired. So both hold the same id. Before
        they have one, at least one run of the bucket must have a record.
        """
        ours, theirs = await self._store.store_id(), await self._objects.store_id()
        if theirs is not None:
            if ours != theirs:
                raise SweepRefused(
                    "the bucket belongs to another Redis, or Redis has lost its data: check REDIS_URL, "
                    "REDIS_KEY_PREFIX and S3_BUCKET. If all of them are right, delete the object 'users/_store' "
                    "and sweep again"
                )
            return
        if not await self._knows_a_run():
            raise SweepRefused(
                "no run in the bucket has a record in this Redis, so they may belong to different installations: check "
                "REDIS_URL, REDIS_KEY_PREFIX and S3_BUCKET. If all of them are right, sweep again after the next run"
            )
        if not self._dry_run:
            await self._store.set_store_id(secrets.token_hex(16))
            # Read again: another sweep may have been first.
            await self._objects.set_store_id(await self._store.store_id() or "")

    async def _knows_a_run(self) -> bool:
        """Return whether a run of the bucket has a record; True for an empty bucket."""
        is_empty = True
        async for runs in self._batches(""):
            is_empty = False
            ids = {run.run_id for run in runs}
            if len(await self._store.missing([*ids])) < len(ids):
                return True
        return is_empty

    async def _batches(self, after: str) -> AsyncIterator[list[_RunObjects]]:
        """Yield the runs after a key, RUNS_PER_CHECK at a time."""
        batch: list[_RunObjects] = []
        async for run in self._runs(after):
            batch.append(run)
            if len(batch) == RUNS_PER_CHECK:
                yield batch
                batch = []
        if batch:
            yield batch

    async def _runs(self, after: str) -> AsyncIterator[_RunObjects]:
        """Yield the objects of the runs after a key; those of a run with very many in several parts."""
        run: _RunObjects | None = None
        while page := await self._page(after):
            for item in page:
                owner = _owner(item.key)
                if run and (run.prefix != (owner and owner.prefix) or len(run.objects) == MAX_GROUP):
                    yield run
                    run = None
                run = run or owner
                if run:
                    run.objects.append(item)
            after = page[-1].key
        if run:
            yield run

    async def _page(self, after: str) -> Sequence[SweepableObject]:
        await asyncio.sleep(self._pause_s)
        page = await self._objects.page(after)
        if page and page[0].key <= after:
            raise FilesUnavailable(f"the object store lists objects again that it listed before: '{page[0].key}'")
        return page

    async def _sweep(self, runs: Sequence[_RunObjects], *, after_ms: int) -> None:
        """Delete what is to be deleted of these runs. The last complete pass began at `after_ms`."""
        old_ms = self._now() - self._min_age_ms
        self._report.objects += sum(len(run.objects) for run in runs)
        runs = [run for run in runs if run.older(old_ms)]
        missing = await self._store.missing([run.run_id for run in runs])
        for run in runs:
            if run.run_id in missing:
                await self._delete_expired(run, run.older(old_ms))
            elif after_ms - self._min_age_ms < run.newest_ms <= old_ms:
                await self._delete_unnamed(run)

    async def _delete_expired(self, run: _RunObjects, victims: Sequence[SweepableObject]) -> None:
        for start in range(0, len(victims), DELETED_AT_ONCE):
            # Each time anew: the deletion may take longer than a tombstone is kept.
            if not self._dry_run and not await self._store.bury(run.user, run.run_id):
                return
            await self._delete(victims[start : start + DELETED_AT_ONCE])
        if not self._dry_run:
            await self._store.unbury(run.user, run.run_id)
        size = sum(each.size_bytes for each in victims)
        self._report.expired_runs += 1
        self._report.expired_objects += len(victims)
        self._report.expired_bytes += size
        if not self._dry_run:
            log("sweep.expired", run_id=run.run_id, user=run.user, objects=len(victims), size_bytes=size)

    async def _delete_unnamed(self, run: _RunObjects) -> None:
        names = await self._names(run)
        if names is None:
            return
        victims = [each for each in run.objects if each.key.removeprefix(run.prefix) not in names]
        for start in range(0, len(victims), DELETED_AT_ONCE):
            await self._delete(victims[start : start + DELETED_AT_ONCE])
        size = sum(each.size_bytes for each in victims)
        self._report.unnamed_objects += len(victims)
        self._report.unnamed_bytes += size
        if victims and not self._dry_run:
            log("sweep.unnamed", run_id=run.run_id, user=run.user, objects=len(victims), size_bytes=size)

    async def _names(self, run: _RunObjects) -> set[str] | None:
        """Return the keys that the record of an ended run names; None if the run must be left alone."""
        try:
            named = await self._store.named_objects(run.run_id)
            if named is None:
                return None
            names = set(named.names)
            for blob in named.lists:
                await asyncio.sleep(self._pause_s)
                names.update(names_in(await self._objects.read(run.prefix + blob)))
        except (FileMissing, RecordUnreadable, *UNDECODABLE):
            self._report.unreadable += 1
            return None
        return names

    async def _delete(self, victims: Sequence[SweepableObject]) -> None:
        if victims and not self._dry_run:
            await asyncio.sleep(self._pause_s)
            await self._objects.delete([each.key for each in victims])

    async def _save(self, state: SweepState) -> None:
        if not self._dry_run:
            await self._store.save(state)


def _owner(key: str) -> _RunObjects | None:
    """Return the run to which an object belongs, without objects; None for an object that is no run's."""
    parts = key.split("/", 4)
    if len(parts) < 5 or (parts[0], parts[2]) != ("users", "runs"):
        return None
    return _RunObjects(parts[1], parts[3], "/".join(parts[:4]) + "/")
