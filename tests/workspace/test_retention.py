"""Sweeper of the object store, over a real Valkey and a real S3 server."""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import IO

import pytest
import typer
from typer.testing import Result

from infra.commands.sweep import sweep
from infra.contract.errors import FilesUnavailable
from infra.contract.states import Status
from infra.redis_tcp import RedisTcp
from infra.retention import MIN_AGE_MS, SweepRefused
from infra.settings import RedisTcpSettings, S3Settings
from infra.workspace import Workspaces
from infra.workspace.bucket import Bucket, StoredObject
from infra.workspace.inventory import STORE_ID
from tests.support.commands import invoke
from tests.support.run_store import RunStore
from tests.support.s3 import variables_of
from tests.support.servers import valkey_fixture
from tests.workspace.retention_world import HOUR_MS, World, empty, structured

tcp = valkey_fixture()


@pytest.fixture(scope="module")
def bucket(s3: S3Settings) -> Iterator[Workspaces]:
    """Workspaces in a bucket of their own."""
    settings = S3Settings("swept", s3.region, s3.access_key, s3.secret_key, s3.endpoint_url)
    made = Workspaces(settings)
    asyncio.run(made.ensure_bucket())
    yield made
    made.close()


@pytest.fixture
async def world(
    tcp: RedisTcpSettings, bucket: Workspaces, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    redis = RedisTcp(tcp)
    await redis.command("FLUSHALL")
    empty(bucket)
    made = World(RunStore(redis), bucket, "ada", random.Random(getattr(request, "param", 1)))
    put = Bucket.put

    def note(self: Bucket, key: str, body: "bytes | IO[bytes]", size_bytes: int) -> StoredObject:
        made.stored[key] = made.now_ms
        return put(self, key, body, size_bytes)

    monkeypatch.setattr(Bucket, "put", note)
    yield made
    await redis.close()


async def ended_run(world: World, files: int = 2) -> str:
    """Return a run that has failed, with files, and with an object that a lost worker stored."""
    await world.create(start=True)
    await world.claim()
    run_id = world.runs[-1]
    _, workspace = world.leases[run_id]
    for _ in range(files):
        await world.work()
    await workspace.write("lost.txt", b"never committed")
    await world.finish()
    return run_id


@pytest.mark.parametrize("world", range(int(os.environ.get("SWEEP_SEEDS", "2"))), indirect=True)
async def test_exactly_what_no_record_needs_is_deleted_while_runs_change(world: World) -> None:
    await world.create(start=True)  # so that Redis and the bucket have a run in common
    await world.claim()
    await world.work()
    await world.sweeper().sweep()
    for _ in range(4):
        for _ in range(25):
            await world.act()
        world.interferes = True
        await world.sweeper().sweep()
        world.interferes = False
        used, _ = await world.keys_in_use()
        assert used <= await world.objects()

    # An earlier pass has seen some ended runs before their end, and so this one would not look at them again.
    await world.store._redis.command("HDEL", world.store.keys.sweep, "swept_ms")
    world.now_ms += 3 * MIN_AGE_MS
    before = await world.objects()
    await world.sweeper().sweep()
    used, live = await world.keys_in_use()
    assert await world.objects() == used | {key for key in before if key.startswith(tuple(live))}
    # No id of an expired run is reserved any more.
    for run_id in set(world.runs):
        digest = await world.store._redis.command("HGET", world.store.keys.run(run_id), "digest")
        assert digest != "expired"


async def test_objects_younger_than_a_day_are_kept(world: World) -> None:
    gone, ended = await ended_run(world), await ended_run(world)
    await world.store._redis.command("DEL", world.store.keys.run(gone))
    before = await world.objects()

    world.now_ms += MIN_AGE_MS - 1
    assert structured(await world.sweeper().sweep()) == {"objects": len(before)}
    assert await world.objects() == before

    world.now_ms += HOUR_MS
    report = await world.sweeper(dry_run=True).sweep()
    assert await world.objects() == before
    assert report == await world.sweeper().sweep()
    assert (report.expired_runs, report.unnamed_objects >= 1) == (1, True)
    assert {key.split("/")[3] for key in await world.objects()} == {ended}


async def test_an_interrupted_pass_continues_and_finds_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.retention.RUNS_PER_CHECK", 2)
    monkeypatch.setattr("infra.workspace.bucket.DELETE_BATCH", 5)
    runs = [await ended_run(world, files=1) for _ in range(7)]
    for run_id in runs[:-1]:
        await world.store._redis.command("DEL", world.store.keys.run(run_id))
    world.now_ms += 2 * MIN_AGE_MS
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise FilesUnavailable("the store is away")

    monkeypatch.setattr(world, "interfere", fail)
    failures = 0
    for _ in range(100):
        try:
            await world.sweeper().sweep()
            break
        except FilesUnavailable:
            failures += 1
    assert failures > 1

    # The ids of runs whose deletion was interrupted are reserved for a while. The next pass deletes their objects.
    monkeypatch.undo()
    for run_id in runs[:-1]:
        if await world.store._redis.command("TTL", world.store.keys.run(run_id)) != -2:
            await world.store._redis.command("DEL", world.store.keys.run(run_id))
    await world.sweeper().sweep()
    assert {key.split("/")[3] for key in await world.objects()} == {runs[-1]}


async def test_the_redis_of_another_installation_is_refused(world: World) -> None:
    await ended_run(world)
    before = await world.objects()
    world.now_ms += 9 * MIN_AGE_MS
    redis = world.store._redis

    await redis.command("FLUSHALL")
    with pytest.raises(SweepRefused, match="no run in the bucket has a record"):
        await world.sweeper().sweep()

    await ended_run(world)
    world.stored.clear()
    await world.sweeper().sweep()
    await redis.command("FLUSHALL")
    with pytest.raises(SweepRefused, match="another Redis"):
        await world.sweeper().sweep()
    await redis.command("HSET", "sweep", "store", "of another installation")
    with pytest.raises(SweepRefused, match="another Redis"):
        await world.sweeper().sweep()
    assert before <= await world.objects()


async def test_a_sweep_that_ended_between_the_two_ids_is_completed(world: World) -> None:
    await ended_run(world)
    await world.store._redis.command("HSET", "sweep", "store", "noted in Redis alone")
    await world.sweeper().sweep()
    assert await world.workspaces.inventory.read(STORE_ID) == b"noted in Redis alone"


async def test_a_run_with_an_unreadable_record_is_left_alone(world: World) -> None:
    damaged, without_blob, deep, overwritten = [await ended_run(world) for _ in range(4)]
    redis = world.store._redis
    await redis.command("HSET", f"run:{damaged}", "file:x", '{"key":"files/1-')
    await redis.command("HSET", f"run:{without_blob}", "journal:step:9:files", '{"$kept":"kept/7-7"}')
    # A text of a user: it is no JSON of ours, but may look like it.
    prompt = json.dumps({"prompt": "[" * 5000 + '"files/x"' + "]" * 5000})
    await redis.command("HSET", f"run:{deep}", "spec", prompt)
    await redis.command("DEL", f"run:{overwritten}")
    await redis.command("SET", f"run:{overwritten}", "garbage")
    before = await world.objects()
    world.now_ms += 2 * MIN_AGE_MS
    report = await world.sweeper().sweep()
    assert (report.unreadable, report.unnamed_objects) == (4, 0)
    assert await world.objects() == before


async def test_no_run_is_created_under_an_id_whose_objects_are_being_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired = await ended_run(world)
    await ended_run(world)
    await world.store._redis.command("DEL", world.store.keys.run(expired))
    world.now_ms += 2 * MIN_AGE_MS
    seen = []

    async def recreate() -> None:
        await world.create(expired, start=True)
        seen.append(await world.store._redis.command("HGET", world.store.keys.run(expired), "status"))

    delete = world.workspaces.inventory.delete

    async def recreate_then_delete(keys: Sequence[str]) -> None:
        if expired in keys[0]:
            await recreate()
        await delete(keys)

    monkeypatch.setattr(world.workspaces.inventory, "delete", recreate_then_delete)
    await world.sweeper().sweep()
    assert seen == [None]
    await recreate()
    assert seen[-1] == Status.QUEUED.value


def test_the_command_sweeps_and_names_wrong_settings(
    tcp: RedisTcpSettings, bucket: Workspaces, s3: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty(bucket)
    for name, value in (variables_of(s3) | {"REDIS_URL": tcp.url, "S3_BUCKET": "swept"}).items():
        monkeypatch.setenv(name, value)
    app = typer.Typer()
    app.command()(sweep)

    def run(**variables: str) -> Result:
        return invoke(app, ["--dry-run"], env=variables)

    done = run()
    assert (done.exit_code, json.loads(done.stdout)["objects"], done.stderr) == (0, 0, "")
    wrong = run(S3_SECRET_KEY="wrong")
    assert (wrong.exit_code, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
    assert "wrong" not in wrong.stderr
    missing = run(REDIS_URL="")
    assert (missing.exit_code, missing.stderr) == (2, "swissbrain: REDIS_URL is not set\n")
