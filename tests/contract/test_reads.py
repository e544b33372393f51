"""Reads: the log, the pages of a user's runs, files, and the live feed that carries the stored bytes."""

from collections.abc import Sequence

import pytest

from infra.contract.errors import FileMissing, RecordUnreadable
from infra.contract.files import FileEntry
from infra.contract.log import NewEvent
from infra.contract.queue import Writes
from infra.contract.redis import Redis
from infra.contract.redis_store import codec
from infra.contract.redis_store.commands import RunCommands
from infra.contract.runs import Brief, PlanStep, RunFilter, RunHead, RunSpec
from infra.contract.states import Outcome, Status
from tests.contract.driver import END, USER, Driver, delete, event, strings
from tests.support.logs import events_in_redis
from tests.support.run_store import RunStore


async def test_events_of_all_scripts_are_numbered_without_a_gap(driver: Driver) -> None:
    run_id = await driver.create()
    _, lease = await driver.claim(lease_ms=1)
    for size in (1, 3, 2):
        await driver.store.emit(lease, Writes(events=[event(n) for n in range(size)]))
        lease.batch += 1
    await driver.let_lease_expire(1)
    _, lease = await driver.claim()
    await driver.store.finish(lease, Status.FAILED, Writes(events=[event(), END]))
    await driver.store.retry(run_id, token="t")
    await driver.store.cancel(run_id)
    events = await events_in_redis(driver.store, run_id)

    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert (await driver.store.get(run_id)).seq == len(events) == 13
    assert events[-1].type == "run.finished"


@pytest.mark.parametrize("after", range(8))
async def test_a_log_is_read_from_the_event_after_the_given_one(driver: Driver, after: int) -> None:
    run_id = await driver.create()
    _, lease = await driver.claim()
    for size in (3, 1, 2):
        await driver.store.emit(lease, Writes(events=[event() for _ in range(size)]))
        lease.batch += 1
    events = await events_in_redis(driver.store, run_id, after=after)
    assert [event.seq for event in events] == list(range(after + 1, 8))


async def test_a_log_of_many_stream_entries_is_read_completely(driver: Driver) -> None:
    run_id = await driver.create()
    _, lease = await driver.claim()
    for _ in range(150):
        await driver.store.emit(lease, Writes(events=[event()]))
        lease.batch += 1
    events = await events_in_redis(driver.store, run_id)
    assert [event.seq for event in events] == list(range(1, 152))


async def test_the_published_batch_equals_the_stored_batch(driver: Driver, redis: Redis) -> None:
    run_id = await driver.create()
    _, lease = await driver.claim()
    text = 'quotes " and \n lines, commas, ünïcödé \u2028 end'
    async with redis.subscribe(f"agent:logs:{run_id}") as messages:  # type: ignore[attr-defined]
        sent = NewEvent(ts=1, type="log", step=2, data={"text": text})
        await driver.store.emit(lease, Writes(events=[sent, event()]))
        live = await anext(messages)
    entries = await redis.command("XRANGE", f"run:{run_id}:log", "2-0", "+")
    ((_, fields),) = [codec.items(entry) for entry in codec.items(entries)]

    assert strings(fields) == ["b", live]
    assert codec.decode_batch(live) == await events_in_redis(driver.store, run_id, after=1)


async def list_runs(store: RunStore, *, limit: int) -> list[str]:
    """Return the ids of all runs of the user, read in pages of `limit`."""
    listed: list[str] = []
    cursor = None
    while True:
        page = await store.page(USER, limit=limit, before=cursor)
        listed += [record.id for record in page.runs]
        cursor = page.cursor
        if cursor is None:
            return listed


async def test_the_runs_of_a_user_are_listed_newest_first(driver: Driver) -> None:
    created = [await driver.create() for _ in range(7)]
    await driver.store.create("run_foreign", "bob", RunSpec(prompt="x"), start=True, digest="d")

    listed = await list_runs(driver.store, limit=3)

    assert sorted(listed) == sorted(created)
    times = [(await driver.store.get(run_id)).created_ms for run_id in listed]
    assert times == sorted(times, reverse=True)


async def test_runs_created_in_the_same_millisecond_are_each_listed_once(driver: Driver, redis: Redis) -> None:
    created = [await driver.create() for _ in range(9)]
    for run_id in created:
        await redis.command("ZADD", f"user:{USER}:runs", 1_800_000_000_000, run_id)

    listed = await list_runs(driver.store, limit=2)

    assert listed == sorted(created, reverse=True)


async def test_runs_can_be_listed_by_status(driver: Driver) -> None:
    created = [await driver.create() for _ in range(6)]
    for run_id in created[::2]:
        await driver.store.cancel(run_id)
    page = await driver.store.page(USER, limit=10, wanted=RunFilter(statuses=[Status.CANCELLED]))
    assert {record.id for record in page.runs} == set(created[::2])


async def test_listing_runs_removes_expired_runs_from_the_index(driver: Driver, redis: Redis) -> None:
    live, expired = await driver.create(), await driver.create()
    await redis.command("DEL", f"run:{expired}")
    page = await driver.store.page(USER, limit=10)
    assert [record.id for record in page.runs] == [live]
    assert strings(await redis.command("ZRANGE", f"user:{USER}:runs", 0, -1)) == [live]


async def test_a_run_that_is_created_again_while_its_expired_record_is_listed_stays_in_the_index(
    driver: Driver, redis: Redis
) -> None:
    again, expired = await driver.create(), await driver.create()
    await redis.command("DEL", f"run:{again}", f"run:{expired}")

    class CreatesAgain(RunCommands):
        async def _heads(self, run_ids: Sequence[str]) -> dict[str, RunHead | RecordUnreadable | None]:
            heads = await super()._heads(run_ids)
            await driver.store.create(again, USER, RunSpec(prompt="x"), start=True, digest="d")
            return heads

    await CreatesAgain(redis, driver.store.keys).page(USER, limit=10)

    assert [record.id for record in (await driver.store.page(USER, limit=10)).runs] == [again]


async def test_a_deleted_run_leaves_no_key(driver: Driver, store: RunStore) -> None:
    run_id, _ = await driver.in_status(Status.FAILED)
    await delete(store, run_id)
    assert await driver.dump() == {}


async def test_a_page_of_runs_is_read_without_their_specs(driver: Driver, redis: Redis) -> None:
    spec = RunSpec(prompt="Clean the table\nand " + "x" * 50_000, priority=7, metadata={"team": "data"})
    run_id = await driver.create(spec=spec)
    await redis.command("HSET", f"run:{run_id}", "spec", "not read")
    (run,) = (await driver.store.page(USER, limit=10)).runs
    assert run.brief == Brief(title="Clean the table", priority=7, metadata={"team": "data"})
    assert await driver.store.head(run_id) == run


@pytest.mark.parametrize(
    ("spec", "title", "steps"),
    [
        (RunSpec(prompt="  \n first line \n second"), "first line", None),
        (RunSpec(prompt="x" * 200), "x" * 119 + "…", None),
        (RunSpec(plan=[PlanStep(tool="shell"), PlanStep(tool="code", name="Plot")]), "shell, Plot", 2),
        (RunSpec(prompt="Both", plan=[PlanStep(tool="shell")]), "Both", 1),
    ],
)
def test_the_title_of_a_run_is_derived_from_its_spec(spec: RunSpec, title: str, steps: int | None) -> None:
    brief = Brief.of(spec)
    assert (brief.title, brief.steps) == (title, steps)


def entry(number: int) -> FileEntry:
    return FileEntry(key=f"files/1-{number}/x", size_bytes=number, modified_ms=5, executable=number % 2 == 1)


async def test_files_and_journal_are_stored_with_the_events_of_their_batch(driver: Driver) -> None:
    run_id = await driver.create()
    _, lease = await driver.claim(lease_ms=1)
    files = {f"data/{n}": entry(n) for n in range(2500)}
    await driver.store.emit(lease, Writes(events=[event()], journal={"a": "1", "b": "2"}, files=dict(files)))
    lease.batch += 1

    assert await driver.store.files(run_id) == files

    deleted: dict[str, FileEntry | None] = {path: None for path in files if path != "data/7"}
    await driver.store.emit(lease, Writes(journal={"a": "", "c": "3"}, files=deleted))
    assert await driver.store.files(run_id) == {"data/7": entry(7)}
    assert await driver.store.file(run_id, "data/7") == entry(7)
    with pytest.raises(FileMissing, match="there is no file 'data/8'"):
        await driver.store.file(run_id, "data/8")

    await driver.let_lease_expire(1)
    claim, _ = await driver.claim()
    assert claim.files == {"data/7": entry(7)}
    assert claim.journal == {"b": b"2", "c": b"3"}


async def test_a_write_with_a_stale_fence_stores_nothing(driver: Driver) -> None:
    run_id = await driver.create()
    _, stale = await driver.claim(lease_ms=1)
    await driver.let_lease_expire(1)
    _, lease = await driver.claim()
    reply = await driver.store.emit(stale, Writes(journal={"a": "1"}, files={"x": entry(1)}))
    assert reply.outcome is Outcome.LOST
    await driver.store.finish(lease, Status.SUCCEEDED, Writes(events=[END], files={"y": entry(2)}))
    assert await driver.store.files(run_id) == {"y": entry(2)}


async def test_creates_remove_expired_runs_from_the_index_of_their_user(driver: Driver, redis: Redis) -> None:
    """Expect an empty backlog after 400 creates: one create in sixteen, by chance, removes up to 32 expired runs."""
    index = driver.store.keys.user_runs(USER)
    expired = [item for n in range(100) for item in (n, f"run_expired_{n}")]
    await redis.command("ZADD", index, *expired)

    created = {await driver.create() for _ in range(400)}

    assert set(strings(await redis.command("ZRANGE", index, 0, -1))) == created


async def test_the_fence_of_a_run_is_known_while_a_worker_has_it(driver: Driver, redis: Redis) -> None:
    run_id = await driver.create()
    assert await driver.store.running_fence(run_id) is None
    _, lease = await driver.claim(lease_ms=1)
    assert await driver.store.running_fence(run_id) == lease.fence
    await driver.let_lease_expire(1)
    _, next_lease = await driver.claim()
    assert await driver.store.running_fence(run_id) == next_lease.fence > lease.fence
    await driver.store.finish(next_lease, Status.SUCCEEDED, Writes(events=[END]))
    assert await driver.store.running_fence(run_id) is None
    assert await driver.store.running_fence("run_gone") is None
