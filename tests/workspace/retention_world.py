"""Runs with objects under a virtual clock, and a bucket whose listings show the times of that clock."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import msgspec

from infra.contract import journal
from infra.contract.files import FileEntry, Input
from infra.contract.log import TERMINAL_EVENT, Event, NewEvent, Segment
from infra.contract.queue import Lease, Writes
from infra.contract.redis_store import codec
from infra.contract.redis_store.retention import RetentionStore
from infra.contract.runs import PlanStep, RunSpec
from infra.contract.states import TERMINAL, Outcome, Status
from infra.retention import MIN_AGE_MS, Report, Sweeper
from infra.workspace import S3RunFiles, Workspaces
from infra.workspace.bucket import ListedObject
from infra.workspace.deletion import delete_below
from infra.workspace.inventory import STORE_ID, Inventory
from tests.support.run_store import RunStore

HOUR_MS = 3_600_000
SPEC = RunSpec(plan=[PlanStep(tool="message", args={"text": "kept/up with files/1-1/x"})])
END = NewEvent(ts=1, type=TERMINAL_EVENT, data={"status": "failed"})
PATHS = ("a.txt", 'd/b "c" ü.csv', "files/x")
ACTS = """create upload start claim claim work work work finish finish archive retry delete expire recreate wait wait"""


class Clocked:
    """Inventory whose listings show virtual times. `before` is awaited before each call of the sweeper."""

    def __init__(self, world: "World", inventory: Inventory) -> None:
        self._world = world
        self._inventory = inventory

    async def page(self, after: str) -> Sequence[ListedObject]:
        await self._world.interfere()
        page = await self._inventory.page(after)
        stored = self._world.stored
        return [ListedObject(each.key, each.size_bytes, stored.get(each.key, self._world.now_ms)) for each in page]

    async def delete(self, keys: Sequence[str]) -> None:
        await self._world.interfere()
        await self._inventory.delete(keys)

    async def read(self, key: str) -> bytes:
        return await self._inventory.read(key)

    async def store_id(self) -> str | None:
        return await self._inventory.store_id()

    async def set_store_id(self, store_id: str) -> None:
        await self._inventory.set_store_id(store_id)


class World:
    """Runs of one user, changed at random as API, workers, clients and Redis's expiry would."""

    def __init__(self, store: RunStore, workspaces: Workspaces, user: str, rng: random.Random) -> None:
        self.store = store
        self.workspaces = workspaces
        self.user = user
        self.rng = rng
        self.now_ms = 10 * MIN_AGE_MS
        self.stored: dict[str, int] = {}
        self.interferes = False
        self.runs: list[str] = []
        self.leases: dict[str, tuple[Lease, S3RunFiles]] = {}
        self.lists: dict[str, dict[str, FileEntry | None]] = {}

    def sweeper(self, **options: Any) -> Sweeper:
        retention = RetentionStore(self.store._redis, self.store.keys)
        objects = Clocked(self, self.workspaces.inventory)
        return Sweeper(retention, objects, requests_per_s=1e6, now=lambda: self.now_ms, **options)

    async def interfere(self) -> None:
        """Do something at random, if the world interferes with the sweeper."""
        if self.interferes:
            await self.act()

    async def act(self) -> None:
        await getattr(self, self.rng.choice(ACTS.split()))()

    async def create(self, run_id: str | None = None, *, start: bool = False) -> None:
        run_id = run_id or f"run_{uuid4().hex}"
        outcome, _ = await self.store.create(run_id, self.user, SPEC, start=start, digest=uuid4().hex)
        if outcome is Outcome.OK:
            self.runs.append(run_id)

    async def upload(self) -> None:
        """Announce an input file, or another content of one, and upload it."""
        if run_id := await self.pick({Status.CREATED}):
            data = uuid4().hex.encode()
            entry = self.workspaces.new_upload("in put.txt", len(data), hashlib.sha256(data).hexdigest())
            _, _, kept = await self.store.announce(run_id, "in put.txt", Input(entry=entry), max_bytes=10**9)
            if kept is None:  # the run is being deleted
                return
            self.workspaces._bucket.put(f"users/{self.user}/runs/{run_id}/{kept.entry.key}", data, len(data))

    async def start(self) -> None:
        if run_id := await self.pick({Status.CREATED}):
            version = (await self.store.inputs(run_id)).version
            await self.store.start(run_id, inputs_version=version)

    async def claim(self) -> None:
        claims = await self.store.claim("w", 1, lease_ms=HOUR_MS * 100)
        for claim in claims.claims:
            files = self.workspaces.run(self.user, claim.run.id, claim.run.fence, claim.files)
            self.leases[claim.run.id] = (Lease(claim.run.id, claim.run.fence), files)

    async def work(self) -> None:
        """Store a file, and commit it with a step, as a list in a blob too; or be lost before the commit."""
        if not (run_id := await self.pick({Status.RUNNING})):
            return
        lease, files = self.leases[run_id]
        await files.write(self.rng.choice(PATHS), uuid4().bytes)
        changes = files.take_uncommitted()
        key = journal.files_key(f"step:{lease.batch}")
        text = codec.encode(changes)
        if self.rng.random() < 0.5:
            ref = journal.BlobRef(name=await files.put_blob(text.encode()))
            self.lists[f"users/{self.user}/runs/{run_id}/{ref.name}"] = changes
            text = codec.encode(ref)
        if self.rng.random() < 0.7:
            await self.store.emit(
                lease, Writes(files=changes, journal={key: text}, events=[NewEvent(ts=1, type="log")])
            )
            lease.batch += 1

    async def finish(self) -> None:
        if run_id := await self.pick({Status.RUNNING}):
            lease, _ = self.leases[run_id]
            await self.store.finish(lease, self.rng.choice([Status.FAILED, Status.SUCCEEDED]), Writes(events=[END]))

    async def archive(self) -> None:
        """Archive the log of a run that has ended, or be lost before the record names the segment."""
        if run_id := await self.pick(TERMINAL):
            run = await self.store.log(run_id)
            record = await self.store.get(run_id)
            if run.seq <= run.archived:
                return
            segment = Segment(run.archived + 1, run.seq, record.fence)
            await self.workspaces.logs.store(run, segment, [Event(seq=run.seq, ts=1, type="log")])
            if self.rng.random() < 0.7:
                await self.store.trim(record, [*run.segments, segment])

    async def retry(self) -> None:
        if run_id := await self.pick({Status.FAILED}):
            await self.store.retry(run_id, token=uuid4().hex)

    async def delete(self) -> None:
        """Delete a run as the API does, or be lost in between."""
        if run_id := await self.pick(TERMINAL | {Status.CREATED}):
            await self.store.mark_deleting(run_id)
            if self.rng.random() < 0.3:
                return
            await self.workspaces.delete_run(self.user, run_id)
            await self.store.delete(run_id, self.user)

    async def expire(self) -> None:
        """Let the record of a run expire."""
        if run_id := await self.pick(TERMINAL | {Status.CREATED}):
            await self.store._redis.command("DEL", self.store.keys.run(run_id), self.store.keys.log(run_id))

    async def recreate(self) -> None:
        """Create a run under the id of an earlier one."""
        if self.runs:
            await self.create(self.rng.choice(self.runs), start=True)

    async def wait(self) -> None:
        self.now_ms += self.rng.choice([HOUR_MS, 13 * HOUR_MS])

    async def pick(self, statuses: "frozenset[Status] | set[Status]") -> str | None:
        """Return a run at random that has one of the statuses."""
        for run_id in self.rng.sample(self.runs, len(self.runs)):
            status = await self.store._redis.command("HGET", self.store.keys.run(run_id), "status")
            if status in {each.value for each in statuses}:
                return run_id
        return None

    async def keys_in_use(self) -> tuple[set[str], set[str]]:
        """Return the keys of the objects that records name, and the prefixes of the runs that have not ended."""
        used, live = set(), set()
        for run_id in set(self.runs):
            fields = codec.pairs(await self.store._redis.command("HGETALL", self.store.keys.run(run_id)))
            prefix = f"users/{self.user}/runs/{run_id}/"
            if "status" not in fields:
                continue
            if Status(fields["status"]) not in TERMINAL or "condemned" in fields:
                live.add(prefix)
            entries: list[FileEntry | None] = [*(await self.store.files(run_id)).values()]
            entries += [each.entry for each in (await self.store.inputs(run_id)).files.values()]
            for key, text in (await self.store.journal(run_id)).items():
                if ref := journal.blob_ref(text):
                    used.add(prefix + ref.name)
                    entries += self.lists[prefix + ref.name].values()
                elif key.endswith(":files"):
                    entries += msgspec.json.decode(text, type=dict[str, FileEntry | None]).values()
            used |= {prefix + entry.key for entry in entries if entry}
            log = await self.store.log(run_id)
            used |= {prefix + segment.object_name(log.created_ms) for segment in log.segments}
        return used, live

    async def objects(self) -> set[str]:
        """Return the keys of all objects of the bucket, without the id of the store."""
        keys: set[str] = set()
        after = ""
        while page := await self.workspaces.inventory.page(after):
            keys |= {each.key for each in page}
            after = page[-1].key
        return keys - {STORE_ID}


def empty(workspaces: Workspaces) -> None:
    """Delete all objects of the bucket."""
    from infra.workspace.cancellation import Cancellation

    delete_below(workspaces._bucket, "users/", Cancellation())


def structured(report: Report) -> dict[str, int]:
    """Return the numbers of a report that are not zero."""
    return {name: value for name, value in vars(report).items() if value}
