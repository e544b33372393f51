"""AsyncClient in an event loop: streams are closed on cancellation, and file transfers do not block the loop."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from swissbrain import AsyncClient, Event
from tests.client.scripted_server import TOKEN, ScriptedServer, end, event, ok, reply, reset, run, sse
from tests.support.scripted_http import Wire


@pytest.fixture
async def ada(api: ScriptedServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(api.url, TOKEN, timeout_s=20) as client:
        yield client


@pytest.fixture
def left() -> threading.Event:
    return threading.Event()


@pytest.fixture
def following(api: ScriptedServer, left: threading.Event) -> None:
    """Let the API stream one event and then notice that the client has left."""

    def hold(wire: Wire) -> None:
        wire.silence()
        left.set()

    api.always = sse(event(1), hold)


async def consume(client: AsyncClient) -> None:
    async for _ in client.events("run_1"):
        pass


async def until(seen: threading.Event) -> None:
    assert await asyncio.to_thread(seen.wait, 20)


@pytest.mark.usefixtures("following")
async def test_a_cancelled_follower_closes_its_stream(ada: AsyncClient, left: threading.Event) -> None:
    got: list[int] = []

    async def follow() -> None:
        async for item in ada.events("run_1"):
            assert isinstance(item, Event)
            got.append(item.seq)

    task = asyncio.create_task(follow())
    while not got:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(left)


@pytest.mark.usefixtures("following")
async def test_a_follower_cancelled_while_it_waits_for_something_else_closes_its_stream(
    ada: AsyncClient, left: threading.Event
) -> None:
    begun = asyncio.Event()

    async def follow() -> None:
        async for _ in ada.events("run_1"):
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(follow())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(left)


@pytest.mark.usefixtures("following")
async def test_a_follower_with_a_timeout_closes_its_stream(ada: AsyncClient, left: threading.Event) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(consume(ada), 0.5)
    await until(left)


@pytest.mark.usefixtures("following")
async def test_a_follower_that_breaks_off_closes_its_stream(ada: AsyncClient, left: threading.Event) -> None:
    async for _ in ada.events("run_1"):
        break
    await until(left)


@pytest.mark.usefixtures("following")
async def test_a_stream_is_closed_at_a_known_place(ada: AsyncClient, left: threading.Event) -> None:
    async with aclosing(ada.events("run_1")) as items:
        await anext(items)
    await until(left)


async def test_a_pause_between_connections_is_cancelled(api: ScriptedServer, ada: AsyncClient) -> None:
    api.always = reset
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(consume(ada), 1)
    assert time.monotonic() - begun < 20


async def test_many_logs_are_followed_at_once(api: ScriptedServer, ada: AsyncClient) -> None:
    api.always = sse(event(1), event(2), end(2))

    async def count() -> int:
        return len([item async for item in ada.events("run_1")])

    assert await asyncio.gather(*(count() for _ in range(40))) == [2] * 40


async def test_a_cancelled_wait_ends_at_once(api: ScriptedServer, ada: AsyncClient, left: threading.Event) -> None:
    def hold(wire: Wire) -> None:
        wire.silence()
        left.set()

    api.then(ok(run(status="running")))
    api.always = hold
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ada.wait("run_1"), 1)
    await until(left)


async def test_large_files_do_not_block_the_loop(
    api: ScriptedServer, ada: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Note the thread of every access to the disk: none may be the thread of the loop."""
    size = 2_000_000
    target = {"method": "PUT", "url": f"{api.url}/store", "headers": {}, "expires_ms": 1}
    api.then(ok({"path": "a", "upload": target}), reply(200), reply(307, location=f"{api.url}/got"))
    api.always = reply(200, b"x" * size)
    path = tmp_path / "a"
    path.write_bytes(b"x" * size)
    threads: set[int] = set()
    opened = Path.open

    class Watched:
        """File that notes the threads that use it."""

        def __init__(self, mode: str) -> None:
            self._file = opened(path, mode)

        def __enter__(self) -> "Watched":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> object:
            threads.add(threading.get_ident())
            return getattr(self._file, name)

    monkeypatch.setattr("swissbrain._async.transfers.open_content", lambda _content: Watched("rb"))
    await ada.upload("run_1", "a", path)
    assert threading.get_ident() not in threads
    assert len(threads) >= 1
    monkeypatch.undo()

    class Target:
        """Target of a download that notes the threads that write to it."""

        def __init__(self) -> None:
            self.size = 0

        def write(self, data: bytes) -> int:
            threads.add(threading.get_ident())
            self.size += len(data)
            return len(data)

    to = Target()
    await ada.download("run_1", "a", to)  # type: ignore[arg-type]
    assert to.size == size
    assert threading.get_ident() not in threads


async def test_a_cancelled_save_leaves_no_file(
    api: ScriptedServer, ada: AsyncClient, tmp_path: Path, left: threading.Event
) -> None:
    def hold(wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500_000)
        wire.silence()
        left.set()

    api.then(reply(307, location=f"{api.url}/got"))
    api.always = hold
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ada.save("run_1", "a", tmp_path / "a"), 1)
    await until(left)
    assert [*tmp_path.iterdir()] == []
