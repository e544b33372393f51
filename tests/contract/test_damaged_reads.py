"""Reads of damaged records: each says so, and a list shows the other runs."""

from collections.abc import Awaitable, Callable

import pytest

from infra.contract import journal
from infra.contract.errors import RecordUnreadable, StoreRejected
from infra.contract.redis import Redis
from infra.contract.redis_store.schedule_store import ScheduleStore
from infra.contract.states import Status
from infra.redis_tcp import RedisTcp
from infra.settings import RedisTcpSettings
from tests.contract.driver import USER, Driver
from tests.contract.test_damaged_records import Damage, not_a_hash, with_value, without
from tests.support.run_store import RunStore


async def bytes_in_the_brief(redis: Redis, run_id: str) -> None:
    # By a script, because a client sends text.
    await redis.command("EVAL", r"return redis.call('HSET', KEYS[1], 'brief', '\255\254')", 1, f"run:{run_id}")


@pytest.mark.parametrize(
    "damage",
    [
        without("status"),
        with_value("status", "paused"),
        without("brief"),
        with_value("brief", "{nope"),
        not_a_hash,
        without("id"),
        with_value("id", "run_other"),
        bytes_in_the_brief,
    ],
    ids=[
        "no status",
        "status of a newer release",
        "no brief",
        "brief is no JSON",
        "not a hash",
        "no id",
        "id of another run",
        "brief is not UTF-8",
    ],
)
async def test_a_damaged_record_is_named_in_the_list_and_hides_no_other_run(driver: Driver, damage: Damage) -> None:
    first, broken, last = [await driver.create() for _ in range(3)]
    await damage(driver.redis, broken)

    page = await driver.store.page(USER, limit=10)

    assert {run.id for run in page.runs} == {first, last}
    assert page.unreadable == [broken]
    for read in (driver.store.get, driver.store.head, driver.store.log):
        with pytest.raises(RecordUnreadable, match=broken):
            await read(broken)
    assert (await driver.store.head(first)).status is Status.QUEUED
    await driver.redis.command("DEL", f"run:{broken}")  # no claim has set it aside, so it would stay for ever


READS: dict[str, tuple[str, str, Callable[[RunStore, str], Awaitable[object]]]] = {
    "attempts": ("attempt:1", "[]", lambda store, run_id: store.attempts(run_id)),
    "end of an attempt": ("attempt:1:end", "soon", lambda store, run_id: store.attempts(run_id)),
    "files": ("file:a", "[]", lambda store, run_id: store.files(run_id)),
    "a file": ("file:a", "soon", lambda store, run_id: store.file(run_id, "a")),
    "folders": ("dir:a", "3", lambda store, run_id: store.folders(run_id)),
    "fence": ("fence", "soon", lambda store, run_id: store.running_fence(run_id)),
    "messages": ("message:1", "soon", lambda store, run_id: store.messages(run_id, after=0, last=1)),
    "nested too deeply": ("result", "[" * 5000 + "]" * 5000, lambda store, run_id: store.get(run_id)),
}


@pytest.mark.parametrize(("field", "value", "read"), READS.values(), ids=READS)
async def test_every_read_says_that_the_record_cannot_be_read(
    driver: Driver, field: str, value: str, read: Callable[[RunStore, str], Awaitable[object]]
) -> None:
    run_id, _ = await driver.in_status(Status.RUNNING)
    await with_value(field, value)(driver.redis, run_id)

    with pytest.raises(RecordUnreadable, match=run_id):
        await read(driver.store, run_id)


async def test_a_status_of_a_newer_release_is_no_open_execution(driver: Driver) -> None:
    run_id, _ = await driver.in_status(Status.RUNNING)
    key, execution = f"run:{run_id}", f"{journal.FIELD_PREFIX}{journal.EXECUTION}"
    await driver.redis.command("HSET", key, "status", "paused", execution, "{}")

    with pytest.raises(RecordUnreadable, match=run_id):
        await driver.store.open_execution(run_id)
    await driver.redis.command("DEL", key, f"{key}:log")


async def test_a_damaged_log_is_told_as_such(driver: Driver) -> None:
    run_id = await driver.create()
    await driver.redis.command("XADD", f"run:{run_id}:log", "9-0", "b", "{nope")

    for read in (driver.store.read(run_id, after=0), driver.store.read_back(run_id, before=None, entries=1)):
        with pytest.raises(RecordUnreadable, match=run_id):
            await read


async def test_an_infinite_time_of_creation_does_not_hide_the_list(driver: Driver) -> None:
    first, last = await driver.create(), await driver.create()
    await driver.redis.command("ZADD", f"user:{USER}:runs", "inf", first)

    page = await driver.store.page(USER, limit=1)
    assert [run.id for run in page.runs] == [first]
    page = await driver.store.page(USER, limit=10, before=page.cursor)
    assert [run.id for run in page.runs] == [last]


@pytest.mark.parametrize("member", [r"\255\254", r"run_\195\040"])
async def test_a_member_of_an_index_that_is_not_utf_8_does_not_hide_the_list(driver: Driver, member: str) -> None:
    runs = [await driver.create() for _ in range(2)]
    script = f"return redis.call('ZADD', KEYS[1], ARGV[1], '{member}')"
    keys = driver.store.keys
    for index in (keys.user_runs(USER), keys.user_schedules(USER), keys.unconfirmed_schedules):
        await driver.redis.command("EVAL", script, 1, index, 2**52)
        await driver.redis.command("EXPIRE", index, 1000)

    listed = await driver.store.page(USER, limit=10)
    schedules = ScheduleStore(driver.redis)

    assert {run.id for run in listed.runs} == set(runs)
    assert (listed.unreadable, await schedules.of_user(USER)) == ([], ([], []))
    assert await schedules.unconfirmed(2**53, 10) == []


async def test_a_command_says_that_the_record_cannot_be_read(driver: Driver) -> None:
    run_id = await driver.create()
    await without("seq")(driver.redis, run_id)

    with pytest.raises(RecordUnreadable, match=run_id):
        await driver.store.cancel(run_id)


@pytest.mark.parametrize("rights", [["-hmget", "-evalsha", "-eval"], ["-hmget"]], ids=["scripts", "in a script"])
async def test_a_lack_of_rights_is_no_damage(redis: Redis, tcp: RedisTcpSettings, rights: list[str]) -> None:
    server = RedisTcp(tcp)
    run_id = await Driver(RunStore(redis), redis).create()
    try:
        await server.command("ACL", "SETUSER", "default", *rights)
        for call in (RunStore(redis).head(run_id), RunStore(redis).cancel(run_id)):
            with pytest.raises(StoreRejected):
                await call
    finally:
        await server.command("ACL", "SETUSER", "default", "+@all")
        await server.close()
