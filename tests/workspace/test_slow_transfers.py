"""Cancellation of slow transfers: the call, its connections and its threads end early."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from infra.contract.files import FileEntry
from infra.workspace import S3RunFiles, Workspaces, client
from infra.workspace.cancellation import CallCancelled, Cancellation, register_socket
from tests.support.faulty_s3 import Fault, FaultyS3, hanging, trickling
from tests.support.waiting import until

DATA = b"0123456789" * 10_000
HUGE = bytes(32_000_000)
HEAD_END = b"\r\n\r\n"
FAULTS = {"silent": hanging, "no status": trickling(), "no head": trickling(b"\r\n"), "no body": trickling(HEAD_END)}


@pytest.fixture(autouse=True)
def no_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exclude read timeouts: only the cancellation may end a transfer."""
    monkeypatch.setattr(client, "READ_TIMEOUT_S", 600)


@pytest.fixture
async def entries(files: S3RunFiles) -> dict[str, FileEntry]:
    """Entries of the files of `run-1`, which have several sizes."""
    for n in range(12):
        await files.write(f"{n}", DATA[: 10 ** (n % 6)])
    return {path: entry for path, entry in files.take_uncommitted().items() if entry}


@pytest.fixture
def stored(through_proxy: Workspaces, user: str, entries: dict[str, FileEntry]) -> S3RunFiles:
    return through_proxy.run(user, "run-1", 2, entries)


async def assert_cancelled(proxy: FaultyS3, call: Awaitable[object], requests: int = 1) -> None:
    """Cancel a call in progress; assert that call, connections and threads end and that no request is repeated."""
    before = set(threading.enumerate())
    task = asyncio.ensure_future(call)

    async def started() -> bool:
        assert not task.done()
        return proxy.open >= requests

    async def done() -> bool:
        return task.done()

    async def closed() -> bool:
        return proxy.open == 0

    await until(started, "the transfer has started")
    await asyncio.sleep(0.2)  # so that it is in the middle
    opened = proxy.opened
    task.cancel()
    await until(done, "the call has ended")
    assert task.cancelled()
    assert not [new.name for new in set(threading.enumerate()) - before if new.name.startswith("transfer")]
    proxy.slow_uploads = False  # bytes in flight still arrive
    await until(closed, "the connections are closed")
    assert proxy.opened == opened


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("max_bytes", [None, 1_000_000])
async def test_a_slow_download_can_be_cancelled(
    proxy: FaultyS3, stored: S3RunFiles, name: str, max_bytes: int | None
) -> None:
    proxy.always = FAULTS[name]
    await assert_cancelled(proxy, stored.read("5", max_bytes))
    proxy.heal()
    assert await stored.read("5", max_bytes) == DATA


@pytest.mark.parametrize("name", FAULTS)
async def test_slow_downloads_of_many_files_can_be_cancelled(
    proxy: FaultyS3, stored: S3RunFiles, work: Path, on_disk: Callable[[], dict[str, bytes]], name: str
) -> None:
    proxy.always = FAULTS[name]
    await assert_cancelled(proxy, stored.materialise(work), requests=8)
    assert on_disk() == {}
    proxy.heal()
    await stored.materialise(work)
    assert on_disk() == {f"{n}": DATA[: 10 ** (n % 6)] for n in range(12)}


@pytest.mark.parametrize("fault", [hanging, trickling()])
async def test_an_upload_with_a_slow_response_can_be_cancelled(
    proxy: FaultyS3, stored: S3RunFiles, fault: Fault
) -> None:
    proxy.always = fault
    await assert_cancelled(proxy, stored.write("new", DATA))
    await assert_cancelled(proxy, stored.put_blob(DATA))
    assert stored.take_uncommitted() == {}
    proxy.heal()
    await stored.write("new", DATA)
    assert await stored.read("new") == DATA


async def test_a_slow_upload_can_be_cancelled(proxy: FaultyS3, stored: S3RunFiles, work: Path) -> None:
    proxy.slow_uploads = True
    await assert_cancelled(proxy, stored.write("huge", HUGE))
    work.mkdir()
    for n in range(3):
        (work / f"huge {n}").write_bytes(HUGE)
    proxy.slow_uploads = True
    await assert_cancelled(proxy, stored.store_changes(work), requests=3)
    assert stored.take_uncommitted() == {}
    assert proxy.seen == []


@pytest.mark.parametrize("fault", [hanging, trickling(), trickling(HEAD_END)])
async def test_copies_and_deletions_with_slow_responses_can_be_cancelled(
    proxy: FaultyS3,
    stored: S3RunFiles,
    through_proxy: Workspaces,
    user: str,
    entries: dict[str, FileEntry],
    fault: Fault,
) -> None:
    other = through_proxy.run(user, "run-2", 1, {})
    proxy.always = fault
    await assert_cancelled(proxy, other.adopt(stored, [entries]), requests=8)
    await assert_cancelled(proxy, through_proxy.delete_run(user, "run-1"))
    proxy.heal()
    await other.adopt(stored, [entries])
    assert await through_proxy.delete_run(user, "run-1") == 12
    assert await other.read("5") == DATA


def test_a_reused_connection_belongs_to_the_latest_call() -> None:
    near, far = socket.socketpair()
    earlier, later = Cancellation(), Cancellation()
    with near, far:
        for cancellation in (earlier, later):
            with cancellation.applied():
                register_socket(near)
        earlier.set()
        near.sendall(b"x")
        later.set()
        with pytest.raises(BrokenPipeError):
            near.sendall(b"x")
        assert near.recv(1) == b""


def test_a_cancelled_call_cannot_use_a_connection() -> None:
    near, far = socket.socketpair()
    cancellation = Cancellation()
    with near, far:
        cancellation.set()
        with cancellation.applied(), pytest.raises(CallCancelled):
            register_socket(near)
        register_socket(near)
        near.sendall(b"x")


def test_a_closed_socket_does_not_disturb_a_cancellation() -> None:
    cancellation = Cancellation()
    near, far = socket.socketpair()
    with near, far, cancellation.applied():
        register_socket(near)
        register_socket(far)
        near.close()
        cancellation.set()
        assert far.recv(1) == b""
