"""Transitions between all pairs of statuses, rejected calls, and repeated calls."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from infra.contract.errors import RunGone, StoreRejected
from infra.contract.queue import Lease, Writes
from infra.contract.redis import Redis
from infra.contract.redis_store import scripts
from infra.contract.states import NEXT, TERMINAL, Outcome, Status
from tests.contract.driver import END, LEASE_MS, SPEC, USER, Driver, delete, event
from tests.support.requests import answers, question
from tests.support.run_store import RunStore

PAIRS = [(source, target) for source in Status for target in Status if source is not target]


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=lambda status: status.value)
async def test_a_transition_happens_only_if_the_table_allows_it(driver: Driver, source: Status, target: Status) -> None:
    reached = set()

    for number in range(len(driver.calls_into("", Lease("", 0))[target])):
        run_id, lease = await driver.in_status(source)
        before = await driver.dump()
        await driver.calls_into(run_id, lease)[target][number]()
        status = (await driver.store.get(run_id)).status
        # A running run may change without a transition: `cancel` sets its flag.
        if status is source and source is not Status.RUNNING:
            assert await driver.dump() == before
        reached.add(status)
        await driver.redis.command("FLUSHALL")

    if target in NEXT[source]:
        assert target in reached
        assert reached <= {source, target}
    else:
        assert reached == {source}


STEPS: dict[str, tuple[Status, Callable[[RunStore, str, Lease], Awaitable[Any]]]] = {
    "create": (Status.QUEUED, lambda store, run_id, _: store.create(run_id, USER, SPEC, start=True, digest="d")),
    "start": (Status.CREATED, lambda store, run_id, _: store.start(run_id)),
    "renew": (Status.RUNNING, lambda store, _, lease: store.renew([lease], lease_ms=LEASE_MS)),
    "emit": (
        Status.RUNNING,
        lambda store, _, lease: store.emit(lease, Writes(events=[event()], journal={"step:0": "1"})),
    ),
    "finish": (
        Status.RUNNING,
        lambda store, _, lease: store.finish(lease, Status.SUCCEEDED, Writes(events=[END], journal={"step:0": "1"})),
    ),
    "fail": (Status.RUNNING, lambda store, _, lease: store.finish(lease, Status.FAILED, Writes(events=[END]))),
    "release": (
        Status.RUNNING,
        lambda store, _, lease: store.release(lease, Writes(events=[event()]), delay_ms=0, burn=True),
    ),
    "delay": (
        Status.RUNNING,
        lambda store, _, lease: store.release(lease, Writes(events=[event()]), delay_ms=9999, burn=False),
    ),
    "release_unable": (
        Status.RUNNING,
        lambda store, _, lease: store.release_unable(lease, Writes(events=[event()]), delay_ms=0),
    ),
    "wait": (Status.RUNNING, lambda store, _, lease: store.wait(lease, Writes(), [question()])),
    "resume": (Status.WAITING, lambda store, run_id, _: store.resume(run_id, answers("q"), by=USER, token="t")),
    "message": (Status.RUNNING, lambda store, run_id, _: store.message(run_id, "hi", by=USER, token="t")),
    "interrupt": (Status.RUNNING, lambda store, run_id, _: store.interrupt(run_id)),
    "cancel queued": (Status.QUEUED, lambda store, run_id, _: store.cancel(run_id)),
    "cancel running": (Status.RUNNING, lambda store, run_id, _: store.cancel(run_id)),
    "retry": (Status.FAILED, lambda store, run_id, _: store.retry(run_id, token="t")),
    "mark_deleting": (Status.SUCCEEDED, lambda store, run_id, _: store.mark_deleting(run_id)),
    "delete": (Status.SUCCEEDED, lambda store, run_id, _: delete(store, run_id)),
}


def outcome_of(answer: Any) -> Outcome:
    if isinstance(answer, list):
        (answer,) = answer
    if isinstance(answer, tuple):
        answer = answer[0]
    outcome = getattr(answer, "outcome", answer)
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.mark.parametrize("name", STEPS)
async def test_a_call_that_is_sent_twice_is_executed_once(driver: Driver, name: str) -> None:
    status, step = STEPS[name]
    run_id, lease = await driver.in_status(status)
    first = outcome_of(await step(driver.store, run_id, lease))

    assert first is (Outcome.SAME if name == "create" else Outcome.OK)

    after_one = await driver.dump()
    second = outcome_of(await step(driver.store, run_id, lease))
    expected = {"renew": Outcome.OK, "delete": Outcome.GONE}.get(name, Outcome.SAME)

    assert second is expected

    if name != "renew":
        assert await driver.dump() == after_one


@pytest.mark.parametrize("name", ["renew", "emit", "finish", "fail", "release", "delay", "wait"])
@pytest.mark.parametrize("owner", ["claimed again", "requeued", "ended"])
async def test_a_stale_fence_is_refused_and_changes_nothing(driver: Driver, name: str, owner: str) -> None:
    await driver.create()
    _, stale = await driver.claim(lease_ms=1)
    await driver.let_lease_expire(1)
    if owner == "requeued":
        await driver.store.claim("other", 0, lease_ms=LEASE_MS)
    else:
        _, lease = await driver.claim()
        if owner == "ended":
            await driver.store.finish(lease, Status.SUCCEEDED, Writes(events=[END]))
    before = await driver.dump()
    answer = await STEPS[name][1](driver.store, stale.run_id, stale)

    assert outcome_of(answer) is Outcome.LOST
    assert await driver.dump() == before


@pytest.mark.parametrize("name", [name for name in STEPS if name != "create"])
async def test_a_call_for_a_missing_run_returns_gone_and_creates_no_key(driver: Driver, name: str) -> None:
    answer = await STEPS[name][1](driver.store, "run_none", Lease("run_none", 1))
    assert outcome_of(answer) is Outcome.GONE
    assert await driver.dump() == {}


@pytest.mark.parametrize("status", [Status.CREATED, Status.FAILED, Status.CANCELLED])
async def test_a_run_being_deleted_is_not_queued_again(driver: Driver, status: Status) -> None:
    run_id, _ = await driver.in_status(status)
    assert await driver.store.mark_deleting(run_id) == (Outcome.OK, status)
    before = await driver.dump()
    answer = driver.store.start(run_id) if status is Status.CREATED else driver.store.retry(run_id, token="t")
    assert outcome_of(await answer) is Outcome.GONE
    assert await driver.dump() == before
    assert outcome_of(await driver.store.delete(run_id, USER)) is Outcome.OK


async def test_a_late_delete_does_not_remove_a_new_run_of_the_same_id(driver: Driver) -> None:
    run_id, _ = await driver.in_status(Status.CREATED)
    await delete(driver.store, run_id)
    await driver.store.create(run_id, USER, SPEC, start=False, digest="d")
    before = await driver.dump()
    assert await driver.store.delete(run_id, USER) == (Outcome.REFUSED, Status.CREATED)
    assert await driver.dump() == before


async def test_a_repeated_create_of_a_run_being_deleted_is_refused(driver: Driver) -> None:
    run_id, _ = await driver.in_status(Status.CREATED)
    await driver.store.mark_deleting(run_id)
    answer = await driver.store.create(run_id, USER, SPEC, start=False, digest="d")
    assert answer == (Outcome.REFUSED, None)


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.WAITING])
async def test_an_unfinished_run_is_not_marked_for_deletion(driver: Driver, status: Status) -> None:
    run_id, _ = await driver.in_status(status)
    before = await driver.dump()
    assert await driver.store.mark_deleting(run_id) == (Outcome.REFUSED, status)
    assert await driver.dump() == before


async def test_reading_a_missing_run_raises_run_gone(store: RunStore) -> None:
    with pytest.raises(RunGone, match="run_none"):
        await store.get("run_none")


SCRIPTS = ["create", "start", "claim", "renew", "emit", "finish", "release", "wait", "resume", "cancel", "retry"]
ONE_KEY = {"renew", "mark_deleting", "interrupt"}


@pytest.mark.parametrize("name", [*SCRIPTS, "message", "interrupt", "mark_deleting", "delete"])
async def test_missing_keys_or_arguments_are_rejected_before_the_first_write(
    driver: Driver, redis: Redis, name: str
) -> None:
    run_id, _ = await driver.in_status(Status.RUNNING)
    before = await driver.dump()
    with pytest.raises(StoreRejected, match="expected"):
        await redis.script(scripts.load(name), [], [])
    with pytest.raises(StoreRejected, match="expected"):
        await redis.script(scripts.load(name), [f"run:{run_id}"] * (0 if name in ONE_KEY else 1), [])
    assert await driver.dump() == before


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("emit", ["1", "", "1", "many", "[]", "c", ""]),
        ("emit", ["1", "", "next", "1", "[]", "c", ""]),
        ("finish", ["id", "1", "", "1", "1", "[]", "c", "succeeded", "", "", "soon", "0", ""]),
        ("release", ["id", "1", "", "1", "1", "[]", "c", "later", "1", "n", ""]),
        ("wait", ["id", "1", "", "1", "?", "[]", "c", "2", "[]", "1", "n", ""]),
        ("claim", ["w", "all", "1000", "run:", "c:", "1", "n", "1", "0", "p", "1", "0", "1"]),
        ("claim", ["w", "1", "1000", "run:", "c:", "1", "n", "newest", "0", "p", "1", "0", "1"]),
        ("claim", ["w", "1", "1000", "run:", "c:", "1", "n", "1", "0", "p", "1", "perhaps", "1"]),
        ("claim", ["w", "1", "1000", "run:", "c:", "1", "n", "1", "0", "p", "1", "0", "long"]),
        ("renew", ["soon", "id", "1"]),
    ],
)
async def test_an_argument_that_is_not_a_number_is_rejected_before_the_first_write(
    driver: Driver, redis: Redis, name: str, args: list[str]
) -> None:
    run_id, _ = await driver.in_status(Status.RUNNING)
    before = await driver.dump()
    with pytest.raises(StoreRejected, match="must be a number"):
        await redis.script(scripts.load(name), [f"run:{run_id}", *["jobs:x"] * 9], args)
    assert await driver.dump() == before


async def test_a_finish_with_a_nonterminal_status_is_refused(driver: Driver) -> None:
    _, lease = await driver.in_status(Status.RUNNING)
    before = await driver.dump()
    for status in set(Status) - TERMINAL:
        assert await driver.store.finish(lease, status, Writes(events=[END])) is Outcome.REFUSED
    assert await driver.dump() == before


async def test_a_batch_out_of_order_is_refused(driver: Driver) -> None:
    _, lease = await driver.in_status(Status.RUNNING)
    lease.batch = 5
    before = await driver.dump()
    reply = await driver.store.emit(lease, Writes(events=[event()]))
    assert reply.outcome is Outcome.REFUSED
    assert await driver.dump() == before
