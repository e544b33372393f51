"""Redis away, loading, or not to be found: the worker comes back by itself and has lost nothing."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.contract.errors import ExecutorUnavailable, StoreUnavailable
from infra.contract.runs import PlanStep
from infra.contract.states import Status
from infra.local_executor.sandbox import find_bwrap
from tests.chaos.processes import Process
from tests.support.redis import LOADS_SLOWLY, OwnValkey, hurry, save_ballast
from tests.support.waiting import until, wait_until
from tests.worker.rig import Rig
from worker.queue import loop
from worker.toolkit.base import ToolContext

NAME = "redis.of.the.tests"
GENEROUS_S = 60.0


async def refusal(rig: Rig) -> str:
    try:
        await rig.store.ping()
    except StoreUnavailable as exc:
        return str(exc)
    return ""


async def test_while_redis_loads_its_data_everything_waits(own: Rig, server: OwnValkey) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def body(context: ToolContext, command: str) -> None:
        begun.set()
        await go.wait()
        await context.output("stdout", command)

    own.worker(body, slots=1, lease_s=600)
    held = await own.submit("one", "two")
    await asyncio.wait_for(begun.wait(), 20)
    own.worker(body, slots=1, lease_s=600)
    await until(lambda: _is_quiet(own, held), "nothing is under way that Redis could forget")
    await save_ballast(own.redis)
    server.stop()
    go.set()
    server.start(*LOADS_SLOWLY)

    async def loading() -> bool:
        return "BusyLoading" in await refusal(own)

    async def loaded() -> bool:
        return not await refusal(own)

    await until(loading, "Redis loads")
    await hurry(own.redis)
    await until(loaded, "Redis has loaded", GENEROUS_S)
    for run_id in (held, await own.submit("three"), await own.submit("four")):
        run = await own.ended(run_id)
        assert (run.status, run.attempt) == (Status.SUCCEEDED, 1)
    texts = [event.data["text"] for event in await own.log(held) if event.type == "tool.output"]
    assert texts == ["one", "two"]


async def test_a_tool_that_logs_while_redis_is_away_is_slowed_and_nothing_is_dropped(rig: Rig) -> None:
    lines, told = 4000, 0
    begun = asyncio.Event()

    async def body(context: ToolContext, command: str) -> None:
        nonlocal told
        await begun.wait()
        for number in range(lines):
            await context.output("stdout", f"{number} {'x' * 200}")
            told = number

    rig.worker(body, lease_s=600)
    run_id = await rig.submit("flood")
    await until(lambda: _is_running(rig, run_id), "it has begun")
    await rig.redis.command("CLIENT", "PAUSE", 60_000, "WRITE")
    begun.set()
    before = -1

    async def stands_still() -> bool:
        nonlocal before
        last, before = before, told
        await asyncio.sleep(0.3)
        return last == before > 0

    await until(stands_still, "the tool waits")
    assert told < lines / 2
    await rig.redis.command("CLIENT", "UNPAUSE")
    await rig.ended(run_id)
    texts = [str(event.data["text"]) for event in await rig.log(run_id) if event.type == "tool.output"]
    assert [int(text.split()[0]) for text in texts] == list(range(lines))


async def _is_quiet(rig: Rig, run_id: str) -> bool:
    idle = "blocked_clients:1" in str(await rig.redis.command("INFO", "clients"))
    return idle and "tool.started" in await rig.kinds(run_id)


async def _is_running(rig: Rig, run_id: str) -> bool:
    return (await rig.store.get(run_id)).status is Status.RUNNING


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """The names that the worker below can resolve; to ask for others takes no time and fails for now."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: files dns\n")
    (tmp_path / "hosts").write_text("")
    return tmp_path / "hosts"


@pytest.fixture
def lonely(hosts: Path, server: OwnValkey, tmp_path: Path) -> Iterator[Process]:
    """The worker as a process that has to resolve the name of its Redis."""
    try:
        bwrap = str(find_bwrap())
    except ExecutorUnavailable as exc:
        pytest.skip(str(exc))
    seen = [part for name in ("hosts", "resolv.conf", "nsswitch.conf") for part in _bound(hosts.parent / name)]
    variables = {
        "REDIS_URL": server.settings.url.replace("127.0.0.1", NAME),
        "REDIS_TIMEOUT_S": "2",
        "S3_ENDPOINT_URL": "http://127.0.0.1:1",
        "S3_ACCESS_KEY": "none",
        "S3_SECRET_KEY": "none",
        "WORKER_ROOT": str(tmp_path / "work"),
    }
    command = [bwrap, "--dev-bind", "/", "/", *seen, "--die-with-parent", "--", sys.executable, "-m", "worker"]
    worker = Process("lonely", command, {**os.environ, **variables}, tmp_path / "worker.log")
    worker.start()
    yield worker
    worker.end()


def _bound(path: Path) -> list[str]:
    return ["--bind", str(path), f"/etc/{path.name}"]


async def test_a_name_that_resolves_late_or_not_for_a_while_is_asked_for_again(
    own: Rig, server: OwnValkey, lonely: Process, hosts: Path
) -> None:
    def misses() -> int:
        return lonely.log().count("queue.unreachable")

    for _ in range(2):
        known = misses()
        await asyncio.to_thread(wait_until, lambda: misses() > known + 1, "it cannot find Redis", GENEROUS_S)  # noqa: B023
        hosts.write_text(f"127.0.0.1 {NAME}\n")
        run_id = await own.submit(plan=[PlanStep(tool="message", args={"text": "x"})])
        assert (await own.ended(run_id)).status is Status.SUCCEEDED
        hosts.write_text("")
        server.stop()
        server.start()
    assert lonely.is_alive()


async def test_a_worker_ends_though_redis_is_away(own: Rig, server: OwnValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot give back what it holds, so the lease ends by itself."""
    monkeypatch.setattr(loop, "RELEASE_S", 0.2)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def body(context: ToolContext, command: str) -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    worker = own.worker(body, lease_s=600, grace_s=0.1)
    await own.submit("x")
    await asyncio.wait_for(begun.wait(), 20)
    server.stop()
    worker.loop.drain()
    await asyncio.wait_for(worker.task, GENEROUS_S)
    assert ended.is_set()
    assert not any(task.get_name().startswith(("run ", "work ", "emit ")) for task in asyncio.all_tasks())
