"""Logs read from their end: the last events, and the ones before an event, from archive and stream alike."""

import gzip
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from edge_api.logs.filters import EventFilter
from edge_api.logs.limits import MAX_READS
from edge_api.logs.pages import LogPages
from infra.contract.log import Event, RunLog, Segment
from infra.contract.runs import Brief, RunHead
from infra.contract.states import Status
from infra.redis_tcp import RedisTcp
from infra.workspace import Workspaces
from infra.workspace.log_segments import LogSegments
from tests.edge.logs.archiving import ArchivingWorker
from tests.edge.stack import Edge, create, note

MILLION = 1_000_000
SEGMENT = 10_000
LONG = 200_000


@pytest.fixture
def edge(stored_edge: Edge) -> Edge:
    return stored_edge


async def page(http: httpx.AsyncClient, run_id: str, **params: Any) -> dict[str, Any]:
    answer = await http.get(f"/agent/logs/{run_id}", params=params)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def seqs(body: dict[str, Any]) -> list[int]:
    return [event["seq"] for event in body["events"]]


async def backwards(http: httpx.AsyncClient, run_id: str, limit: int) -> tuple[list[int], list[dict[str, int]]]:
    """Return all events and gaps of a log, read backwards in pages, in order."""
    found: list[int] = []
    gaps: list[dict[str, int]] = []
    body = await page(http, run_id, tail=limit)
    while True:
        found = seqs(body) + found
        gaps = ([body["gap"]] if "gap" in body else []) + gaps
        if (before := body["prev_before"]) is None:
            return found, gaps
        body = await page(http, run_id, before=before, limit=limit)


@pytest.mark.parametrize("lasts", [(), (1,), (4,), (3, 6), (1, 2, 7), (12,), (5, 12)])
async def test_archive_and_stream_are_read_backwards_as_one_log(
    ada: httpx.AsyncClient, archiving: ArchivingWorker, lasts: tuple[int, ...]
) -> None:
    run_id = await create(ada)
    await archiving.complete(events=10)
    await archiving.archive(run_id, *lasts)
    for limit in (1, 3, 5, 12, 1000):
        assert await backwards(ada, run_id, limit) == (list(range(1, 13)), [])
        last = await page(ada, run_id, tail=limit)
        assert seqs(last) == list(range(1, 13))[-limit:]
        assert (last["first_seq"], last["next_after"], last["last_seq"]) == (max(1, 13 - limit), 12, 12)
        assert last["done"]
    for before in range(1, 16):
        body = await page(ada, run_id, before=before, limit=4)
        assert seqs(body) == list(range(1, min(before, 13)))[-4:]
        assert body["first_seq"] == (seqs(body)[0] if body["events"] else None)
        assert body["done"] == (before > 12)


async def test_batches_of_several_events_are_cut_in_the_middle(
    ada: httpx.AsyncClient, archiving: ArchivingWorker
) -> None:
    run_id = await create(ada)
    lease = await archiving.claim()
    await archiving.emit(lease, *(note(number) for number in range(7)))
    await archiving.emit(lease, *(note(number) for number in range(5)))
    for before in range(1, 15):
        assert seqs(await page(ada, run_id, before=before, limit=3)) == list(range(max(1, before - 3), before))
    body = await page(ada, run_id, tail=6)
    assert (seqs(body), body["done"], "gap" in body) == ([8, 9, 10, 11, 12, 13], False, False)
    await archiving.emit(lease, note(14))
    assert seqs(await page(ada, run_id, after=body["next_after"])) == [14]
    await archiving.finish(lease)


async def test_a_run_without_events_has_an_empty_tail(ada: httpx.AsyncClient) -> None:
    body = await page(ada, await create(ada, start=False), tail=10)
    assert (body["events"], body["first_seq"], body["prev_before"], body["done"]) == ([], None, None, False)


async def test_lost_segments_and_lost_entries_are_gaps(
    ada: httpx.AsyncClient, archiving: ArchivingWorker, redis: RedisTcp
) -> None:
    run_id = await create(ada)
    await archiving.complete(events=10)
    segments = await archiving.archive(run_id, 4, 8)
    await archiving.workspaces.logs.discard(await archiving.store.log(run_id), segments[1])
    await redis.command("XDEL", f"run:{run_id}:log", "10-0")
    for limit in (1, 2, 5, 1000):
        found, gaps = await backwards(ada, run_id, limit)
        assert found == [1, 2, 3, 4, 9, 11, 12]
        assert gaps == [{"first": 5, "last": 8}, {"first": 10, "last": 10}]
    await redis.command("DEL", f"run:{run_id}:log")
    found, gaps = await backwards(ada, run_id, 3)
    assert (found, gaps) == ([1, 2, 3, 4], [{"first": 5, "last": 8}, {"first": 9, "last": 12}])
    assert (await page(ada, run_id, tail=3))["gap"] == {"first": 9, "last": 12}


async def test_events_archived_after_the_record_was_read_are_found_backwards(
    ada: httpx.AsyncClient, archiving: ArchivingWorker
) -> None:
    run_id = await create(ada)
    await archiving.complete(events=10)
    old = await archiving.store.log(run_id)
    pages = LogPages(archiving.store, archiving.workspaces.logs)
    await archiving.archive(run_id, 6)
    assert [event.seq for event in (await pages.backwards(old, None, 100)).events] == list(range(1, 13))
    await archiving.archive(run_id, 12)
    found = await pages.backwards(old, None, 100)
    assert [event.seq for event in found.events] == list(range(1, 13))
    assert found.gap is None


async def test_a_deleted_run_has_no_tail(ada: httpx.AsyncClient, archiving: ArchivingWorker) -> None:
    run_id = await create(ada)
    await archiving.complete(events=10)
    assert (await ada.delete(f"/agent/runs/{run_id}")).status_code == 204
    assert (await ada.get(f"/agent/logs/{run_id}", params={"tail": 5})).status_code == 404


async def test_a_tail_of_long_events_is_bounded_and_says_where_to_go_on(
    ada: httpx.AsyncClient, archiving: ArchivingWorker
) -> None:
    run_id = await create(ada)
    lease = await archiving.claim()
    for number in range(40):
        await archiving.emit(lease, *(note(number, text="x" * 15_000) for _ in range(4)))
    await archiving.finish(lease)
    for archived in (0, 100, 162):
        if archived:
            await archiving.archive(run_id, archived)
        body = await page(ada, run_id, tail=1000)
        assert 60 < len(body["events"]) < 75
        assert body["prev_before"] == body["first_seq"] == seqs(body)[0]
        assert await backwards(ada, run_id, 1000) == (list(range(1, 163)), [])


class CountingArchive(LogSegments):
    """Archive that counts the segments that are opened and the events that are read from them."""

    def __init__(self, inner: LogSegments) -> None:
        self._inner = inner
        self.segments: list[int] = []
        self.batches = 0

    async def read(self, run: RunHead, segment: Segment, *, after: int) -> AsyncGenerator[list[Event], None]:
        self.segments.append(segment.first)
        async for batch in self._inner.read(run, segment, after=after):
            self.batches += 1
            yield batch


LINE = (
    '{"seq":%d,"ts":1,"type":"tool.output","step":%d,'
    '"data":{"stream":"%s","text":"line %d of a program that prints very much"}}\n'
)


def packed(segment: Segment) -> bytes:
    """Return the events of a segment: 100 for each step, up to step 199, the last of each hundred an error."""
    streams = ["stderr", *["stdout"] * 99]
    lines = (LINE % (n, min(n // 100, 199), streams[n % 100], n) for n in range(segment.first, segment.last + 1))
    return gzip.compress("".join(lines).encode(), compresslevel=1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def million(workspaces: Workspaces) -> RunLog:
    """Ended run with a million archived events."""
    run = RunLog(
        id="run_of_a_million",
        user="ada",
        status=Status.SUCCEEDED,
        brief=Brief(title="long"),
        attempt=1,
        seq=MILLION,
        cancel=False,
        created_ms=1,
        queued_ms=1,
        started_ms=1,
        finished_ms=1,
        error=None,
        deleting=False,
        segments=[Segment(first, first + SEGMENT - 1, 1) for first in range(1, MILLION, SEGMENT)],
    )
    for segment in run.segments:
        name = f"1-{segment.first:010}-{segment.last}-1.ndjson.gz"
        data = packed(segment)
        workspaces.logs._bucket.put(f"users/ada/runs/{run.id}/log/{name}", data, len(data))
    return run


async def test_the_end_of_a_million_archived_events_is_read_in_constant_memory(
    archiving: ArchivingWorker, million: RunLog
) -> None:
    archive = CountingArchive(archiving.workspaces.logs)
    pages = LogPages(archiving.store, archive)
    tracemalloc.start()
    try:
        found = await pages.backwards(million, None, 1000)
        assert [event.seq for event in found.events] == list(range(MILLION - 999, MILLION + 1))
        assert archive.segments == [MILLION - SEGMENT + 1]
        middle = await pages.backwards(million, MILLION // 2 + 501, 1000)
        assert [event.seq for event in middle.events] == list(range(MILLION // 2 - 499, MILLION // 2 + 501))
        assert archive.segments[1:] == [MILLION // 2 + 1, MILLION // 2 - SEGMENT + 1]
        errors = await pages.backwards(million, None, 150, EventFilter(streams=frozenset({"stderr"})))
        assert [event.seq for event in errors.events] == list(range(MILLION - 14_900, MILLION + 1, 100))
        assert archive.segments[3:] == [MILLION - SEGMENT + 1, MILLION - 2 * SEGMENT + 1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The decompressed segments that were read have 6 MB, the log has 120 MB.
    assert peak < 5 * 1024 * 1024


async def test_a_filter_that_few_events_match_is_a_bounded_scan_in_both_directions(
    archiving: ArchivingWorker, million: RunLog
) -> None:
    run = msgspec.structs.replace(million, seq=LONG, segments=million.segments[: LONG // SEGMENT])
    archive = CountingArchive(archiving.workspaces.logs)
    pages = LogPages(archiving.store, archive)
    rare = EventFilter(steps=frozenset({3}))
    expected = list(range(300, 400))
    found: list[int] = []
    before: int | None = None
    rounds = 0
    while before is None or before > 1:
        archive.batches = 0
        back = await pages.backwards(run, before, 1000, rare)
        assert archive.batches < MAX_READS + 10
        assert back.first < (before or LONG + 1)
        found, before, rounds = [event.seq for event in back.events] + found, back.first, rounds + 1
    assert (found, rounds > 2) == (expected, True)
    found, after = [], 0
    while after < LONG:
        archive.batches = 0
        forth = await pages.forwards(run, after, 1000, rare)
        assert archive.batches <= MAX_READS + 1
        assert forth.last > after
        found, after = found + [event.seq for event in forth.events], forth.last
    assert found == expected
