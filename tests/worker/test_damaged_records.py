"""Damaged records beside healthy ones in one worker: the worker lives on, and the healthy runs succeed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from infra.contract.redis import Redis
from infra.contract.states import Status
from tests.support.waiting import until
from tests.worker.rig import Gate, Rig

Damage = Callable[[Redis, str], Awaitable[object]]


def of_bytes(field: str) -> Damage:
    """Return the damage that a field is not UTF-8: a client sends text, so a script stores the bytes."""
    script = r"return redis.call('HSET', KEYS[1], ARGV[1], '\255\254')"
    return lambda redis, run_id: redis.command("EVAL", script, 1, f"run:{run_id}", field)


async def not_a_hash(redis: Redis, run_id: str) -> None:
    await redis.command("DEL", f"run:{run_id}")
    await redis.command("SET", f"run:{run_id}", "garbage", "EX", 60)


DAMAGES: dict[str, Damage] = {
    "no id": lambda redis, run_id: redis.command("HDEL", f"run:{run_id}", "id"),
    "no user": lambda redis, run_id: redis.command("HDEL", f"run:{run_id}", "user"),
    "spec is not UTF-8": of_bytes("spec"),
    "user is not UTF-8": of_bytes("user"),
    "a file is not UTF-8": of_bytes("file:a"),
    "an attempt is not UTF-8": of_bytes("attempt:0"),
    "journal is not UTF-8": of_bytes("journal:step:0"),
    "result is nested too deeply": lambda redis, run_id: redis.command(
        "HSET", f"run:{run_id}", "result", "[" * 5000 + "]" * 5000
    ),
    "not a hash": not_a_hash,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_run_that_cannot_be_claimed_stops_neither_its_worker_nor_other_runs(rig: Rig, damage: Damage) -> None:
    first, broken, last = [await rig.submit("one") for _ in range(3)]
    await damage(rig.redis, broken)

    worker = rig.worker()

    for run_id in (first, last):
        assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert not worker.task.done()


@pytest.mark.parametrize("field", ["execution", "executions", "session"])
async def test_a_run_with_a_damaged_journal_ends_at_its_first_claim(rig: Rig, field: str) -> None:
    """It was dropped, and failed with `worker_lost` after as many leases as it has attempts."""
    run_id = await rig.submit("one")
    await rig.redis.command("HSET", f"run:{run_id}", f"journal:{field}", "{nope")

    rig.worker()

    run = await rig.ended(run_id)
    assert run.error
    assert (run.attempt, run.error.code) == (1, "unreadable_record")


async def test_a_damaged_number_of_messages_keeps_no_run_from_working(rig: Rig) -> None:
    run_id = await rig.submit("one")
    await rig.redis.command("HSET", f"run:{run_id}", "messages", "many")

    rig.worker()

    assert (await rig.ended(run_id)).status is Status.SUCCEEDED


async def test_a_run_whose_record_is_overwritten_while_it_works_costs_no_other_run(rig: Rig) -> None:
    gate = Gate()
    worker = rig.worker(gate, renew_s=0.2)
    ids = [await rig.submit("wait") for _ in range(3)]

    async def all_begun() -> bool:
        return gate.calls["wait"] == 3

    await until(all_begun, "all runs have begun")
    await not_a_hash(rig.redis, ids[1])

    async def given_up() -> bool:
        return worker.task.done() or len(gate.cancelled) == 1

    await until(given_up, "the renewal has ended the work on it")
    gate.go.set()
    assert [(await rig.ended(run_id)).status for run_id in (ids[0], ids[2])] == [Status.SUCCEEDED] * 2
    await asyncio.sleep(0)
    assert not worker.task.done()
