"""Input files of a run in the record: announced before the start, fixed by it."""

import asyncio
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from infra.contract.errors import InvalidInput, LimitExceeded
from infra.contract.files import MAX_INPUTS, FileEntry, Input
from infra.contract.redis import Redis
from infra.contract.states import Outcome, Status
from tests.contract.driver import SPEC, USER, Driver
from tests.support.run_store import RunStore

GB = 1024**3
AWKWARD = ["a b", "ä/日本 😀.csv", "100%.csv", "a+b#c?d&e.csv", ".hidden", "quo\"te'.csv", "x" * 255, "file:a", "{}[]"]


def uploaded(key: str, size_bytes: int = 1, sha256: str = "0" * 64) -> Input:
    return Input(entry=FileEntry(key=key, size_bytes=size_bytes, modified_ms=0, sha256=sha256))


def copied(key: str, run_id: str = "run_other") -> Input:
    ns = 1_700_000_000_123_456_789  # no double is equal to it
    entry = FileEntry(key=key, size_bytes=1, modified_ms=ns // 1_000_000, executable=True, mode=0o750, mtime_ns=ns)
    return Input(entry=entry, from_run=run_id, source_path="out/a")


@dataclass
class Announcer:
    """Announces inputs of one created run; the stored time is left out of what it returns."""

    store: RunStore
    run_id: str

    async def __call__(self, path: str, file: Input, max_bytes: int = GB) -> tuple[Outcome, Input | None]:
        outcome, status, stored = await self.store.announce(self.run_id, path, file, max_bytes=max_bytes)
        assert status is Status.CREATED
        if stored and stored.from_run is None:
            stored = replace(stored, entry=replace(stored.entry, modified_ms=0))
        return outcome, stored


@pytest.fixture
async def announce(driver: Driver) -> Announcer:
    return Announcer(driver.store, await driver.create(start=False))


async def test_start_makes_uploads_files_and_leaves_the_others_to_the_worker(
    announce: Announcer, driver: Driver, store: RunStore
) -> None:
    for number, name in enumerate(AWKWARD):
        assert (await announce(name, uploaded(f"k{number}", GB // 16)))[0] is Outcome.OK
    assert (await announce("copy", copied("there")))[0] is Outcome.OK
    assert await store.files(announce.run_id) == {}
    inputs = await store.inputs(announce.run_id)
    assert inputs.uploads().keys() == set(AWKWARD)

    assert await store.start(announce.run_id, inputs_version=inputs.version) == (Outcome.OK, Status.QUEUED)

    files = await store.files(announce.run_id)
    created_ms = (await store.head(announce.run_id)).created_ms
    assert files == inputs.uploads()
    assert [(files[name].key, files[name].size_bytes) for name in AWKWARD] == [(f"k{n}", GB // 16) for n in range(9)]
    assert all(created_ms <= entry.modified_ms < created_ms + 60_000 for entry in files.values())
    claim, _ = await driver.claim()
    assert claim.files == files
    assert claim.inputs["copy"] == copied("there")


async def test_equal_content_keeps_its_object_and_other_content_gets_another_one(announce: Announcer) -> None:
    assert await announce("a", uploaded("k1")) == (Outcome.OK, uploaded("k1"))
    assert await announce("a", uploaded("k2")) == (Outcome.SAME, uploaded("k1"))
    for other in (
        uploaded("k3", 2),
        uploaded("k4", sha256="1" * 64),
        copied("k5"),
        copied("k6"),
        copied("k6", "run_b"),
    ):
        assert await announce("a", other) == (Outcome.OK, other)
    assert await announce("a", copied("k6", "run_b")) == (Outcome.SAME, copied("k6", "run_b"))


async def test_the_limits_of_number_and_bytes_are_exact(announce: Announcer, store: RunStore) -> None:
    with pytest.raises(LimitExceeded, match="1 input files with 11 bytes"):
        await announce("a", uploaded("k", 11), 10)
    assert (await announce("a", uploaded("k", 10), 10))[0] is Outcome.OK
    assert (await announce("empty", uploaded("k", 0), 10))[0] is Outcome.OK
    with pytest.raises(LimitExceeded):
        await announce("b", uploaded("k", 1), 10)
    for number in range(2, MAX_INPUTS):
        assert (await announce(f"file {number}", uploaded("k", 0), 10))[0] is Outcome.OK
    with pytest.raises(LimitExceeded, match=f"{MAX_INPUTS + 1} input files"):
        await announce("one more", uploaded("k", 0), 10)
    assert (await announce("a", uploaded("k9", 3), 10))[0] is Outcome.OK
    assert len((await store.inputs(announce.run_id)).files) == MAX_INPUTS


async def test_an_input_cannot_be_a_folder_of_another_one(announce: Announcer) -> None:
    await announce("a/b", uploaded("k"))
    for path in ("a", "a/b/c"):
        with pytest.raises(InvalidInput, match="'a/b' cannot both exist"):
            await announce(path, uploaded("k"))
    assert (await announce("a/bc", uploaded("k")))[0] is Outcome.OK


async def test_start_refuses_inputs_that_the_caller_has_not_checked(announce: Announcer, store: RunStore) -> None:
    await announce("a", uploaded("k1"))
    await announce("a", uploaded("k2", 2))
    for version in (0, 1, 3):
        assert await store.start(announce.run_id, inputs_version=version) == (Outcome.REFUSED, Status.CREATED)
    assert await store.start(announce.run_id, inputs_version=2) == (Outcome.OK, Status.QUEUED)
    assert await store.start(announce.run_id, inputs_version=0) == (Outcome.SAME, Status.QUEUED)
    assert await store.announce(announce.run_id, "b", uploaded("k3"), max_bytes=GB) == (
        Outcome.REFUSED,
        Status.QUEUED,
        None,
    )


async def test_a_start_beside_announcements_queues_exactly_what_was_announced_before(
    announce: Announcer, store: RunStore
) -> None:
    async def try_to_announce(number: int) -> bool:
        outcome, _, _ = await store.announce(announce.run_id, f"f{number}", uploaded(f"k{number}"), max_bytes=GB)
        return outcome is Outcome.OK

    async def try_to_start() -> int:
        while True:
            version = (await store.inputs(announce.run_id)).version
            if (await store.start(announce.run_id, inputs_version=version))[0] is Outcome.OK:
                return version

    *added, version = await asyncio.gather(*map(try_to_announce, range(20)), try_to_start())
    files = await store.files(announce.run_id)
    assert files.keys() == {f"f{number}" for number, was_added in enumerate(added) if was_added}
    assert version == len(files)


async def test_a_run_cancelled_before_its_start_gets_its_inputs_with_the_retry_and_only_once(
    announce: Announcer, driver: Driver, store: RunStore, redis: Redis
) -> None:
    await announce("a", uploaded("k1"))
    await store.cancel(announce.run_id)
    assert await store.retry(announce.run_id, token="t", inputs_version=0) == (Outcome.REFUSED, Status.CANCELLED)
    assert await store.retry(announce.run_id, token="t", inputs_version=1) == (Outcome.OK, Status.QUEUED)
    assert (await store.files(announce.run_id))["a"].key == "k1"
    # A step may delete an input file; a later retry must not bring it back.
    await redis.command("HDEL", f"run:{announce.run_id}", "file:a")
    await store.cancel(announce.run_id)
    assert await store.retry(announce.run_id, token="u") == (Outcome.OK, Status.QUEUED)
    assert await store.files(announce.run_id) == {}


async def test_a_run_can_be_created_with_files_of_other_runs(store: RunStore) -> None:
    for _ in range(2):
        await store.create("run_f", USER, SPEC, start=False, digest="d", inputs={"a": copied("k1")})
    inputs = await store.inputs("run_f")
    assert (inputs.version, inputs.files, inputs.uploads()) == (0, {"a": copied("k1")}, {})
    assert (await store.announce("run_f", "a", uploaded("k2"), max_bytes=GB))[0] is Outcome.OK
    assert await store.start("run_f", inputs_version=1) == (Outcome.OK, Status.QUEUED)
    assert (await store.files("run_f"))["a"].key == "k2"


async def test_a_run_that_is_being_deleted_takes_no_input(announce: Announcer, store: RunStore) -> None:
    await store.mark_deleting(announce.run_id)
    assert await store.announce(announce.run_id, "a", uploaded("k"), max_bytes=GB) == (Outcome.GONE, None, None)
    assert await store.announce("run_none", "a", uploaded("k"), max_bytes=GB) == (Outcome.GONE, None, None)
