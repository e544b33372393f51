"""Faults of the object store: calls are retried, and no run succeeds without its files."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from infra.contract.runs import RunRecord
from infra.contract.states import Status
from infra.settings import S3Settings
from infra.workspace import Workspaces, client
from tests.support.faulty_s3 import (
    Fault,
    FaultyS3,
    crawling,
    cut,
    faulty_s3,
    hanging,
    passed,
    refused,
    trickling,
    unanswered,
)
from tests.support.waiting import until
from tests.worker.rig import Rig
from worker.toolkit.base import ToolContext

SIZE = 100_000
SLOW_DOWN = refused(HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown")
FAULTS = {
    "503 SlowDown": SLOW_DOWN,
    "500 InternalError": refused(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError"),
    "reset": cut,
    "answer lost": unanswered,
    "hanging": hanging,
}
LONG_S = 60.0
"""Lease that does not expire on a busy machine, so only the store can cause another attempt."""
TRIES = 3
"""Number of times that the S3 client sends a call."""


@pytest.fixture
def fault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Fault:
    """Return one of FAULTS. For the hanging one all read timeouts are short, so tests request this fixture first."""
    made: Fault = FAULTS[request.param]
    if made is hanging:
        monkeypatch.setattr(client, "READ_TIMEOUT_S", 3)
    return made


@pytest.fixture
async def store(s3: S3Settings) -> AsyncIterator[FaultyS3]:
    with faulty_s3(s3) as faulty:
        yield faulty


@pytest.fixture
async def workspaces(store: FaultyS3) -> AsyncIterator[Workspaces]:
    made = Workspaces(store.settings)
    await made.ensure_bucket()
    yield made
    await asyncio.to_thread(made.close)


async def copy(context: ToolContext, command: str) -> None:
    """`write` writes a file, `copy` reads it and writes another one."""
    if command == "write":
        await context.files.write("a", b"x" * SIZE)
    else:
        await context.files.write("b", await context.files.read("a"))


async def is_complete(rig: Rig, workspaces: Workspaces, run: RunRecord) -> bool:
    files = workspaces.run("ada", run.id, 0, await rig.store.files(run.id))
    return [await files.read(name) for name in ("a", "b")] == [b"x" * SIZE] * 2


@pytest.mark.parametrize("method", ["PUT", "GET"])
@pytest.mark.parametrize("fault", FAULTS, indirect=True)
async def test_a_failed_call_is_sent_again(
    fault: Fault, rig: Rig, store: FaultyS3, workspaces: Workspaces, method: str
) -> None:
    store.then(method, *[fault] * (TRIES - 1))
    rig.worker(copy, workspaces=workspaces, lease_s=LONG_S)
    run = await rig.ended(await rig.submit("write", "copy"))
    assert (run.status, run.attempt) == (Status.SUCCEEDED, 1)
    sent = [seen for seen, path in store.seen if "/files/" in path and seen == method]
    assert len(sent) == (2 if method == "PUT" else 1) + TRIES - 1
    assert await is_complete(rig, workspaces, run)


@pytest.mark.parametrize("method", ["PUT", "GET"])
@pytest.mark.parametrize("fault", FAULTS, indirect=True)
async def test_a_run_is_requeued_if_the_store_keeps_failing(
    fault: Fault, rig: Rig, store: FaultyS3, workspaces: Workspaces, method: str
) -> None:
    store.then(method, *[passed] * (method == "PUT"), *[fault] * TRIES)
    rig.worker(copy, workspaces=workspaces, lease_s=LONG_S)
    run = await rig.ended(await rig.submit("write", "copy"))
    assert (run.status, run.attempt) == (Status.SUCCEEDED, 2)
    log = await rig.log(run.id)
    (requeued,) = [event.data for event in log if event.type == "run.requeued"]
    assert requeued["reason"] == "files_unavailable"
    assert [event.step for event in log if event.type == "step.finished"] == [0, 1]
    assert await is_complete(rig, workspaces, run)


@pytest.mark.parametrize("fault", [SLOW_DOWN, unanswered])
async def test_a_run_whose_files_cannot_be_stored_does_not_succeed(
    rig: Rig, store: FaultyS3, workspaces: Workspaces, fault: Fault
) -> None:
    rig.worker(copy, workspaces=workspaces, lease_s=LONG_S)
    store.always = fault
    run = await rig.ended(await rig.submit("write", "copy", max_attempts=2))
    assert run.error
    assert (run.status, run.error.code, run.attempt) == (Status.FAILED, "files_unavailable", 2)
    assert await rig.store.files(run.id) == {}
    assert "step.finished" not in await rig.kinds(run.id)
    store.always = passed
    await rig.store.retry(run.id, token="t")
    assert (await rig.ended(run.id)).status is Status.SUCCEEDED
    assert await is_complete(rig, workspaces, run)


async def test_the_lease_is_renewed_during_a_transfer(rig: Rig, store: FaultyS3, workspaces: Workspaces) -> None:
    renewals = 0

    def loses(name: str) -> bool:
        nonlocal renewals
        renewals += name == "renew"
        return False

    store.then("GET", crawling(2))
    rig.worker(copy, workspaces=workspaces, lease_s=LONG_S, renew_s=0.5, loses=loses)
    run = await rig.ended(await rig.submit("write", "copy"))
    assert (run.status, run.attempt) == (Status.SUCCEEDED, 1)
    assert renewals > 1
    assert await is_complete(rig, workspaces, run)


async def is_idle(store: FaultyS3) -> bool:
    """Return whether no connection is open."""
    return store.open == 0


async def test_a_run_ends_at_its_timeout_although_its_transfer_does_not_end(
    rig: Rig, store: FaultyS3, workspaces: Workspaces
) -> None:
    store.then("GET", *[trickling(b"\r\n\r\n")] * TRIES)
    rig.worker(copy, workspaces=workspaces, lease_s=LONG_S)
    run = await rig.ended(await rig.submit("write", "copy", timeout_s=2))
    assert run.error
    assert (run.status, run.error.code) == (Status.FAILED, "timeout")
    await until(lambda: is_idle(store), "the connection is closed")


async def test_a_worker_drains_although_a_transfer_does_not_end(
    rig: Rig, store: FaultyS3, workspaces: Workspaces
) -> None:
    async def reads() -> bool:
        return any(seen == "GET" for seen, _ in store.seen)

    store.then("GET", trickling(b"\r\n\r\n"))
    worker = rig.worker(copy, workspaces=workspaces, lease_s=LONG_S, grace_s=0.1)
    run_id = await rig.submit("write", "copy")
    await until(reads, "the transfer is under way")
    await worker.drained()
    await until(lambda: is_idle(store), "the connection is closed")
    rig.worker(copy, workspaces=workspaces, lease_s=LONG_S)
    run = await rig.ended(run_id)
    assert (run.status, run.attempt) == (Status.SUCCEEDED, 1)
    assert await is_complete(rig, workspaces, run)
