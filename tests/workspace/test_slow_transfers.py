"""Transfers that are not worth waiting for, and are not waited for once nobody wants them."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from infra.contract.files import FileEntry
from infra.settings import S3Settings
from infra.workspace import S3RunFiles, Workspaces, client
from infra.workspace.cancellation import Stop, Stopped, uses
from tests.support.faulty_s3 import Fault, FaultyS3, faulty_s3, hanging, trickling
from tests.support.waiting import until

DATA = b"0123456789" * 10_000
HUGE = bytes(32_000_000)
HEAD_END = b"\r\n\r\n"
FAULTS = {"silent": hanging, "no status": trickling(), "no head": trickling(b"\r\n"), "no body": trickling(HEAD_END)}


@pytest.fixture
async def store(s3: S3Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultyS3]:
    """Nothing here ends because of a timeout."""
    monkeypatch.setattr(client, "READ_TIMEOUT_S", 600)
    with faulty_s3(s3) as faulty:
        yield faulty


@pytest.fixture
async def behind(store: FaultyS3, workspaces: Workspaces) -> AsyncIterator[Workspaces]:
    made = Workspaces(store.settings)
    yield made
    store.ending.set()
    await asyncio.to_thread(made.close)


@pytest.fixture
async def entries(files: S3RunFiles) -> dict[str, FileEntry]:
    """The files of `run-1`, of several sizes."""
    for n in range(12):
        await files.write(f"{n}", DATA[: 10 ** (n % 6)])
    return {path: entry for path, entry in files.take_uncommitted().items() if entry}


@pytest.fixture
def stored(behind: Workspaces, user: str, entries: dict[str, FileEntry]) -> S3RunFiles:
    return behind.run(user, "run-1", 2, entries)


async def is_given_up(store: FaultyS3, call: Awaitable[object], requests: int = 1) -> None:
    """Cancel a call under way: it ends, and with it its connections and threads. Nothing is asked again."""
    before = set(threading.enumerate())
    task = asyncio.ensure_future(call)

    async def under_way() -> bool:
        assert not task.done()
        return store.open >= requests

    async def done() -> bool:
        return task.done()

    async def gone() -> bool:
        return store.open == 0

    await until(under_way, "the transfer is under way")
    await asyncio.sleep(0.2)  # somewhere within it
    opened = store.opened
    task.cancel()
    await until(done, "the call has ended")
    assert task.cancelled()
    assert not [new.name for new in set(threading.enumerate()) - before if new.name.startswith("transfer")]
    store.sips = False  # what is on its way still arrives
    await until(gone, "the connections are closed")
    assert store.opened == opened


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("max_bytes", [None, 1_000_000])
async def test_a_file_that_comes_slowly(store: FaultyS3, stored: S3RunFiles, name: str, max_bytes: int | None) -> None:
    store.always = FAULTS[name]
    await is_given_up(store, stored.read("5", max_bytes))
    store.heal()
    assert await stored.read("5", max_bytes) == DATA


@pytest.mark.parametrize("name", FAULTS)
async def test_many_files_that_come_slowly(
    store: FaultyS3, stored: S3RunFiles, work: Path, on_disk: Callable[[], dict[str, bytes]], name: str
) -> None:
    store.always = FAULTS[name]
    await is_given_up(store, stored.materialise(work), requests=8)
    assert on_disk() == {}
    store.heal()
    await stored.materialise(work)
    assert on_disk() == {f"{n}": DATA[: 10 ** (n % 6)] for n in range(12)}


@pytest.mark.parametrize("fault", [hanging, trickling()])
async def test_an_upload_whose_answer_comes_slowly(store: FaultyS3, stored: S3RunFiles, fault: Fault) -> None:
    store.always = fault
    await is_given_up(store, stored.write("new", DATA))
    await is_given_up(store, stored.put_blob(DATA))
    assert stored.take_uncommitted() == {}
    store.heal()
    await stored.write("new", DATA)
    assert await stored.read("new") == DATA


async def test_an_upload_that_is_taken_slowly(store: FaultyS3, stored: S3RunFiles, work: Path) -> None:
    store.sips = True
    await is_given_up(store, stored.write("huge", HUGE))
    work.mkdir()
    for n in range(3):
        (work / f"huge {n}").write_bytes(HUGE)
    store.sips = True
    await is_given_up(store, stored.store_changes(work), requests=3)
    assert stored.take_uncommitted() == {}
    assert store.seen == []


@pytest.mark.parametrize("fault", [hanging, trickling(), trickling(HEAD_END)])
async def test_copies_and_deletions_whose_answers_come_slowly(
    store: FaultyS3, stored: S3RunFiles, behind: Workspaces, user: str, entries: dict[str, FileEntry], fault: Fault
) -> None:
    other = behind.run(user, "run-2", 1, {})
    store.always = fault
    await is_given_up(store, other.adopt(stored, [entries]), requests=8)
    await is_given_up(store, behind.delete_run(user, "run-1"))
    store.heal()
    await other.adopt(stored, [entries])
    assert await behind.delete_run(user, "run-1") == 12
    assert await other.read("5") == DATA


def test_a_connection_serves_the_call_that_uses_it_now() -> None:
    near, far = socket.socketpair()
    earlier, later = Stop(), Stop()
    with near, far:
        for stop in (earlier, later):
            with stop.governs():
                uses(near)
        earlier.set()
        near.sendall(b"x")
        later.set()
        with pytest.raises(BrokenPipeError):
            near.sendall(b"x")
        assert near.recv(1) == b""


def test_a_call_that_was_stopped_uses_nothing_more() -> None:
    near, far = socket.socketpair()
    stop = Stop()
    with near, far:
        stop.set()
        with stop.governs(), pytest.raises(Stopped):
            uses(near)
        uses(near)
        near.sendall(b"x")


def test_a_closed_socket_is_in_nobodys_way() -> None:
    stop = Stop()
    near, far = socket.socketpair()
    with near, far, stop.governs():
        uses(near)
        uses(far)
        near.close()
        stop.set()
        assert far.recv(1) == b""
