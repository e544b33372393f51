"""Archiving of logs: after any failure, archive and Redis together hold every event once."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from infra.contract.errors import ContractError, FilesUnavailable, HostExhausted, StoreUnavailable
from infra.contract.log import Event, LogArchive, RunLog, Segment
from infra.contract.runs import RunHead, RunRecord
from infra.contract.states import Outcome, Status
from infra.workspace import Workspaces
from tests.support.logs import events_in_redis
from tests.support.run_store import RunStore
from tests.support.waiting import until
from tests.worker.rig import Rig, ToolBody
from worker.run import archiver
from worker.toolkit.base import ToolContext


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiver, "SEGMENT_EVENTS", 100)
    monkeypatch.setattr(archiver, "MAX_WAIT_S", 0.05)


class BadArchive:
    """The real archive, with faults injected by the test."""

    def __init__(self, archive: LogArchive) -> None:
        self.inner = archive
        self.failure: ContractError | None = None
        self.before_store: Callable[[], None] = lambda: None
        self.stored: list[Segment] = []
        self.discarded: list[Segment] = []
        self.read = archive.read

    async def store(self, run: RunHead, segment: Segment, events: Sequence[Event]) -> None:
        self.before_store()
        if self.failure:
            raise self.failure
        await self.inner.store(run, segment, events)
        self.stored.append(segment)

    async def discard(self, run: RunHead, segment: Segment) -> None:
        await self.inner.discard(run, segment)
        self.discarded.append(segment)


@pytest.fixture
def archive(workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch) -> BadArchive:
    bad = BadArchive(workspaces.logs)
    monkeypatch.setattr(workspaces, "logs", bad)
    return bad


async def print_lines(context: ToolContext, command: str) -> None:
    """Log as many lines of output as the command says."""
    for number in range(int(command)):
        await context.output("stdout", f"line {number}")
        if number % 50 == 49:
            await asyncio.sleep(0.03)


def print_then_wait(go: asyncio.Event) -> ToolBody:
    async def body(context: ToolContext, command: str) -> None:
        await print_lines(context, command)
        await go.wait()

    return body


async def read_all(rig: Rig, workspaces: Workspaces, run_id: str) -> tuple[RunLog, list[Event]]:
    """Return a log with its events from archive and Redis, which must hold each event once and in order."""
    log = await rig.store.log(run_id)
    events = [
        event
        for segment in log.segments
        async for some in workspaces.logs.read(log, segment, after=0)
        for event in some
    ]
    assert [event.seq for event in events] == list(range(1, log.archived + 1))
    events += [event for event in await events_in_redis(rig.store, run_id) if event.seq > log.archived]
    assert [event.seq for event in events] == list(range(1, log.seq + 1))
    return log, events


async def in_redis(rig: Rig, run_id: str) -> int:
    return len(await events_in_redis(rig.store, run_id))


async def archived(rig: Rig, run_id: str, wanted: Callable[[RunLog], bool]) -> None:
    async def enough() -> bool:
        return wanted(await rig.store.log(run_id))

    await until(enough, "the log is archived")


async def test_a_long_log_moves_from_redis_into_the_archive_by_its_end(rig: Rig, workspaces: Workspaces) -> None:
    rig.worker(print_lines, workspaces=workspaces)
    run_id = await rig.submit("1000", "3")
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    await archived(rig, run_id, lambda log: log.archived == log.seq)
    log, events = await read_all(rig, workspaces, run_id)
    assert [event.data["text"] for event in events if event.type == "tool.output"][:1000] == [
        f"line {number}" for number in range(1000)
    ]
    assert events[-1].type == "run.finished"
    assert len(log.segments) > 2
    assert await in_redis(rig, run_id) < 100
    await workspaces.delete_run("ada", run_id)


async def test_a_short_log_stays_in_redis(rig: Rig, workspaces: Workspaces, archive: BadArchive) -> None:
    rig.worker(print_lines, workspaces=workspaces)
    run_id = await rig.submit("20")
    worker_is_free = await rig.submit("1")
    await rig.ended(run_id)
    await rig.ended(worker_is_free)
    log, events = await read_all(rig, workspaces, run_id)
    assert (log.archived, archive.stored) == (0, [])
    assert len(events) == await in_redis(rig, run_id) == log.seq


async def test_the_next_owner_continues_the_archive_of_a_killed_worker(rig: Rig, workspaces: Workspaces) -> None:
    go = asyncio.Event()
    first = rig.worker(print_then_wait(go), workspaces=workspaces)
    run_id = await rig.submit("450")
    await archived(rig, run_id, lambda log: log.archived >= 100)
    await first.killed()
    await rig.expire_lease(run_id)
    go.set()
    rig.worker(print_lines, workspaces=workspaces)
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    await archived(rig, run_id, lambda log: log.archived == log.seq)
    log, events = await read_all(rig, workspaces, run_id)
    assert len({segment.writer for segment in log.segments}) == 2
    assert [event.type for event in events].count("run.resumed") == 1


async def test_a_worker_killed_between_upload_and_trim_reply_leaves_the_log_contiguous(
    rig: Rig, workspaces: Workspaces, archive: BadArchive
) -> None:
    lost = False

    def lose(script: str) -> bool:
        nonlocal lost
        lost = lost or script == "trim"
        return script == "trim"

    go = asyncio.Event()
    first = rig.worker(print_then_wait(go), loses=lose, workspaces=workspaces)
    run_id = await rig.submit("150")

    async def trimmed() -> bool:
        return lost

    await until(trimmed, "a segment is named in the record, and the reply is lost")
    await first.killed()
    await rig.expire_lease(run_id)
    go.set()
    rig.worker(print_lines, workspaces=workspaces)
    await rig.ended(run_id)
    await archived(rig, run_id, lambda log: log.archived == log.seq)
    await read_all(rig, workspaces, run_id)


async def test_a_trim_whose_reply_is_lost_is_repeated(rig: Rig, workspaces: Workspaces) -> None:
    lost = 0

    def lose(script: str) -> bool:
        nonlocal lost
        lost += script == "trim"
        return script == "trim" and lost % 2 == 1

    rig.worker(print_lines, loses=lose, workspaces=workspaces)
    run_id = await rig.submit("500")
    await rig.ended(run_id)
    await archived(rig, run_id, lambda log: log.archived == log.seq)
    await read_all(rig, workspaces, run_id)
    assert lost >= 2


@pytest.mark.parametrize("error", [FilesUnavailable("the store is away"), HostExhausted("no thread for it")])
async def test_a_run_waits_once_redis_is_full_while_the_store_is_away(
    rig: Rig, workspaces: Workspaces, archive: BadArchive, monkeypatch: pytest.MonkeyPatch, error: ContractError
) -> None:
    monkeypatch.setattr(archiver, "TAIL_BYTES", 40_000)
    archive.failure = error
    rig.worker(print_lines, workspaces=workspaces)
    run_id = await rig.submit("2000")

    async def is_blocked() -> bool:
        before = await in_redis(rig, run_id)
        await asyncio.sleep(0.5)
        return before > 100 and await in_redis(rig, run_id) == before

    await until(is_blocked, "the tool waits")
    assert await in_redis(rig, run_id) < 2000
    assert not (await rig.store.get(run_id)).finished_ms
    archive.failure = None
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    await archived(rig, run_id, lambda log: log.archived == log.seq)
    await read_all(rig, workspaces, run_id)


async def test_a_log_that_cannot_be_archived_at_its_end_stays_in_redis_and_frees_the_slot(
    rig: Rig, workspaces: Workspaces, archive: BadArchive
) -> None:
    archive.failure = FilesUnavailable("the store is away")
    rig.worker(print_lines, slots=1, workspaces=workspaces)
    run_id = await rig.submit("300")
    after = await rig.submit("1")
    assert (await rig.ended(after)).status is Status.SUCCEEDED
    log, _ = await read_all(rig, workspaces, run_id)
    assert (log.status, log.archived) == (Status.SUCCEEDED, 0)


@pytest.mark.parametrize("named", [True, False])
async def test_a_segment_uploaded_after_the_lease_was_lost_is_not_deleted(
    rig: Rig, workspaces: Workspaces, archive: BadArchive, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """The record may name the segment: the reply to a `trim` before the loss can be lost as well."""
    trim, tries = RunStore.trim, 0

    async def lose(store: RunStore, run: RunRecord, segments: Sequence[Segment], *, owner: str) -> Outcome:
        nonlocal tries
        tries += 1
        if tries > 1:
            return await trim(store, run, segments, owner=owner)
        if named:
            assert await trim(store, run, segments, owner=owner) is Outcome.OK
        await rig.redis.command("HINCRBY", f"run:{run_id}", "fence", 1)
        raise StoreUnavailable("the reply was lost")

    monkeypatch.setattr(RunStore, "trim", lose)
    monkeypatch.setattr(archiver, "MIN_ARCHIVE_BYTES", 0)
    worker = rig.worker(print_lines, workspaces=workspaces)
    run_id = await rig.submit("20")
    await rig.ended(run_id)
    await worker.drained()
    assert tries == 2
    log, events = await read_all(rig, workspaces, run_id)
    assert (log.segments == archive.stored) is named
    assert len(events) == log.seq
    assert not archive.discarded


async def test_a_run_deleted_before_the_last_trim_leaves_no_object(
    rig: Rig, workspaces: Workspaces, archive: BadArchive
) -> None:
    going, go = asyncio.Event(), asyncio.Event()
    store = archive.inner.store

    async def slow(run: RunHead, segment: Segment, events: Sequence[Event]) -> None:
        await store(run, segment, events)
        if events[-1].type == "run.finished":
            going.set()
            await go.wait()

    archive.inner.store = slow  # type: ignore[method-assign]
    try:
        rig.worker(print_lines, workspaces=workspaces)
        run_id = await rig.submit("50", "60", "1")
        await asyncio.wait_for(going.wait(), 20)
        await workspaces.delete_run("ada", run_id)
        await rig.store.mark_deleting(run_id)
        await rig.store.delete(run_id, "ada")
        go.set()

        async def discarded() -> bool:
            return bool(archive.discarded)

        await until(discarded, "the last segment is discarded")
    finally:
        archive.inner.store = store  # type: ignore[method-assign]
    assert await workspaces.delete_run("ada", run_id) == 0


async def test_a_log_with_a_gap_in_redis_stays_in_redis(
    rig: Rig, workspaces: Workspaces, archive: BadArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "TAIL_BYTES", 40_000)
    lose = asyncio.Event()

    async def lossy(context: ToolContext, command: str) -> None:
        await context.output("stdout", "first")
        await lose.wait()
        await print_lines(context, command)

    rig.worker(lossy, workspaces=workspaces)
    run_id = await rig.submit("2000")

    async def begun() -> bool:
        return await in_redis(rig, run_id) > 1

    await until(begun, "the log has begun")
    await rig.redis.command("XTRIM", f"run:{run_id}:log", "MAXLEN", "=", 0)
    lose.set()
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert not archive.stored
    assert await in_redis(rig, run_id) > 2000
