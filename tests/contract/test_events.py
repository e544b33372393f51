"""The events that the scripts make, and how the record and the log share what is long."""

import msgspec
import pytest

from infra.contract.events import EVENTS, RunFinished
from infra.contract.log import TERMINAL_EVENT
from infra.contract.queue import Writes
from infra.contract.redis import Redis
from infra.contract.runs import MAX_ERROR_CHARS, RunError
from infra.contract.states import TERMINAL, Status
from tests.contract.driver import END, LEASE_MS, Driver
from tests.support import events as support
from tests.support.logs import events_in_redis
from worker.run.emitter import new_event


async def logged(driver: Driver, run_id: str, *types: str) -> None:
    """The run's log has these types of events, each as it has to be."""
    events = await events_in_redis(driver.store, run_id)
    assert [event.type for event in events] == [*types]
    for event in events:
        support.check(event)


async def test_a_lost_worker(driver: Driver) -> None:
    run_id = await driver.create()
    tried = ["run.started"]
    for _ in range(2):
        await driver.claim(lease_ms=1)
        await driver.lapse(1)
        tried += ["run.requeued", "run.resumed"]
    await driver.claim(lease_ms=1)
    await driver.lapse(1)
    await driver.store.claim("other", 0, lease_ms=LEASE_MS)
    await logged(driver, run_id, *tried, "run.finished")


async def test_a_cancel(driver: Driver) -> None:
    run_id = await driver.create()
    await driver.store.cancel(run_id)
    await logged(driver, run_id, "run.finished")


async def test_a_cancel_of_a_run_whose_worker_is_lost(driver: Driver) -> None:
    run_id = await driver.create()
    await driver.claim(lease_ms=1)
    await driver.store.cancel(run_id)
    await driver.lapse(1)
    await driver.store.claim("other", 0, lease_ms=LEASE_MS)
    await logged(driver, run_id, "run.started", "run.finished")


async def test_a_run_that_nobody_began_in_time(driver: Driver, redis: Redis) -> None:
    run_id = await driver.create()
    await redis.command("HSET", f"run:{run_id}", "queue_ttl_ms", -1)
    await driver.store.claim("w", 1, lease_ms=LEASE_MS)
    await logged(driver, run_id, "run.finished")


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
async def test_a_retry(driver: Driver, status: Status) -> None:
    run_id, _ = await driver.in_status(status)
    await driver.store.retry(run_id, token="t")
    await driver.claim()
    await logged(driver, run_id, "run.started", "run.finished", "run.retried", "run.resumed")


@pytest.mark.parametrize("text", ["yes", "x" * 8000, "x" * 8001, "é" * 100_000, "\0" * 100_000])
async def test_an_input_is_cut_in_the_log_and_whole_in_the_record(driver: Driver, text: str) -> None:
    run_id, _ = await driver.in_status(Status.WAITING)
    await driver.store.resume(run_id, text, token="t")
    told = (await events_in_redis(driver.store, run_id, after=2))[0]
    support.check(told)
    said = told.data["input"]
    assert said == text if len(text) <= 8000 else text.startswith(said.removesuffix("…"))
    assert len(said) == min(len(text), 8000) or 6 * len(said) > 15_000
    assert (await driver.store.get(run_id)).user_input == text


async def test_the_message_of_an_error_is_longer_in_the_record_than_in_the_log(driver: Driver) -> None:
    run_id, lease = await driver.in_status(Status.RUNNING)
    error = RunError(code="exit_code", message="x" * 100_000, step=1)
    await driver.store.finish(lease, Status.FAILED, Writes(events=[END]), error=error)
    kept = (await driver.store.head(run_id)).error
    assert kept
    assert (kept.code, kept.step) == ("exit_code", 1)
    assert kept.message == "x" * (MAX_ERROR_CHARS - 1) + "…"


def test_the_registry_names_each_type_once() -> None:
    assert EVENTS[TERMINAL_EVENT] is RunFinished
    assert len(set(EVENTS.values())) == len(EVENTS)
    ends = RunFinished.__annotations__["status"].__origin__.__args__
    assert set(ends) == {status.value for status in TERMINAL}


def test_a_field_without_a_value_is_left_out() -> None:
    assert msgspec.json.encode(new_event(RunFinished(status="succeeded")).data) == b'{"status":"succeeded"}'
