"""Events that the scripts write, and long values: complete in the record, truncated in the log."""

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
from tests.support.requests import answers
from worker.run.emitter import new_event


async def assert_logged(driver: Driver, run_id: str, *types: str) -> None:
    """Assert that the run's log has events of exactly these types, each valid against its schema."""
    events = await events_in_redis(driver.store, run_id)
    assert [event.type for event in events] == [*types]
    for event in events:
        support.check(event)


async def test_a_run_that_loses_every_worker_logs_each_requeue_and_its_end(driver: Driver) -> None:
    run_id = await driver.create()
    expected = ["run.started"]
    for _ in range(2):
        await driver.claim(lease_ms=1)
        await driver.let_lease_expire(1)
        expected += ["run.requeued", "run.resumed"]
    await driver.claim(lease_ms=1)
    await driver.let_lease_expire(1)
    await driver.store.claim("other", 0, lease_ms=LEASE_MS)

    await assert_logged(driver, run_id, *expected, "run.finished")


async def test_a_cancel_before_the_start_logs_the_end_alone(driver: Driver) -> None:
    run_id = await driver.create()
    await driver.store.cancel(run_id)
    await assert_logged(driver, run_id, "run.finished")


async def test_a_cancelled_run_whose_worker_is_lost_logs_its_end(driver: Driver) -> None:
    run_id = await driver.create()
    await driver.claim(lease_ms=1)
    await driver.store.cancel(run_id)
    await driver.let_lease_expire(1)
    await driver.store.claim("other", 0, lease_ms=LEASE_MS)
    await assert_logged(driver, run_id, "run.started", "run.finished")


async def test_a_run_that_expired_in_the_queue_logs_the_end_alone(driver: Driver, redis: Redis) -> None:
    run_id = await driver.create()
    await redis.command("HSET", f"run:{run_id}", "queue_ttl_ms", -1)
    await driver.store.claim("w", 1, lease_ms=LEASE_MS)
    await assert_logged(driver, run_id, "run.finished")


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
async def test_a_retried_run_logs_the_retry_and_the_resumption(driver: Driver, status: Status) -> None:
    run_id, _ = await driver.in_status(status)
    await driver.store.retry(run_id, token="t")
    await driver.claim()
    await assert_logged(driver, run_id, "run.started", "run.finished", "run.retried", "run.resumed")


@pytest.mark.parametrize("text", ["yes", "x" * 8000, "x" * 8001, "é" * 100_000, "\0" * 100_000])
async def test_an_input_is_truncated_in_the_log_and_complete_in_the_record(driver: Driver, text: str) -> None:
    run_id, _ = await driver.in_status(Status.WAITING)

    await driver.store.resume(run_id, answers("q", text=text), by="ada", token="t")

    event = (await events_in_redis(driver.store, run_id, after=2))[0]
    support.check(event)
    logged = event.data["input"]

    assert logged == text if len(text) <= 8000 else text.startswith(logged.removesuffix("…"))
    # A character takes up to 6 bytes in JSON ("\u0000"); such texts are limited by bytes before 8,000 characters.
    assert len(logged) == min(len(text), 8000) or 6 * len(logged) > 15_000
    assert (await driver.store.get(run_id)).answers["q"].input == text


async def test_the_message_of_an_error_is_truncated_in_the_record(driver: Driver) -> None:
    run_id, lease = await driver.in_status(Status.RUNNING)
    error = RunError(code="exit_code", message="x" * 100_000, step=1)
    await driver.store.finish(lease, Status.FAILED, Writes(events=[END]), error=error)
    stored = (await driver.store.head(run_id)).error
    assert stored
    assert (stored.code, stored.step) == ("exit_code", 1)
    assert stored.message == "x" * (MAX_ERROR_CHARS - 1) + "…"


def test_the_event_registry_has_each_type_once() -> None:
    assert EVENTS[TERMINAL_EVENT] is RunFinished
    assert len(set(EVENTS.values())) == len(EVENTS)
    end_statuses = RunFinished.__annotations__["status"].__origin__.__args__
    assert set(end_statuses) == {status.value for status in TERMINAL}


def test_an_event_field_without_a_value_is_omitted() -> None:
    assert msgspec.json.encode(new_event(RunFinished(status="succeeded")).data) == b'{"status":"succeeded"}'
