"""Redis unreachable, loading, or with a name that does not resolve: the worker recovers without loss."""

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
from infra.settings import S3Settings
from infra.workspace import Workspaces
from tests.chaos.processes import Process
from tests.support.redis import LOADS_SLOWLY, OwnValkey, hurry, save_ballast
from tests.support.s3 import variables_of
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


async def test_runs_wait_while_redis_loads_its_data(own: Rig, server: OwnValkey) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def body(context: ToolContext, command: str) -> None:
        begun.set()
        await go.wait()
        await context.output("stdout", command)

    own.worker(body, slots=1, lease_s=600)
    held = await own.submit("one", "two")
    await asyncio.wait_for(begun.wait(), 20)
    own.worker(body, slots=1, lease_s=600)
    await until(lambda: _is_quiet(own, held), "no write is pending that a restart of Redis could lose")
    await save_ballast(own.redis)
    server.stop()
    go.set()
    server.start(*LOADS_SLOWLY)

    async def loading() -> bool:
        return "BusyLoading" in await refusal(own)

    async def loaded() -> bool:
        return not await refusal(own)

    await until(loading, "Redis is loading")
    await hurry(own.redis)
    await until(loaded, "Redis has loaded", GENEROUS_S)
    for run_id in (held, await own.submit("three"), await own.submit("four")):
        run = await own.ended(run_id)
        assert (run.status, run.attempt) == (Status.SUCCEEDED, 1)
    texts = [event.data["text"] for event in await own.log(held) if event.type == "tool.output"]
    assert texts == ["one", "two"]


async def test_a_tool_that_logs_waits_while_redis_is_away_and_no_line_is_dropped(rig: Rig) -> None:
    lines, logged = 4000, 0
    begun = asyncio.Event()

    async def body(context: ToolContext, command: str) -> None:
        nonlocal logged
        await begun.wait()
        for number in range(lines):
            await context.output("stdout", f"{number} {'x' * 200}")
            logged = number

    rig.worker(body, lease_s=600)
    run_id = await rig.submit("flood")
    await until(lambda: _is_running(rig, run_id), "the run has begun")
    await rig.redis.command("CLIENT", "PAUSE", 60_000, "WRITE")
    begun.set()
    before = -1

    async def stands_still() -> bool:
        nonlocal before
        last, before = before, logged
        await asyncio.sleep(0.3)
        return last == before > 0

    await until(stands_still, "the tool waits")
    assert logged < lines / 2
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
    """Hosts file of the worker below: any name that it lacks fails to resolve immediately, with a temporary error."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: files dns\n")
    (tmp_path / "hosts").write_text("")
    return tmp_path / "hosts"


@pytest.fixture
def lonely(hosts: Path, server: OwnValkey, s3: S3Settings, workspaces: Workspaces, tmp_path: Path) -> Iterator[Process]:
    """Worker process that must resolve the name of its Redis."""
    try:
        bwrap = str(find_bwrap())
    except ExecutorUnavailable as exc:
        pytest.skip(str(exc))
    seen = [part for name in ("hosts", "resolv.conf", "nsswitch.conf") for part in _bound(hosts.parent / name)]
    variables = {
        "REDIS_URL": server.settings.url.replace("127.0.0.1", NAME),
        "REDIS_TIMEOUT_S": "2",
        **variables_of(s3),
        "WORKER_ROOT": str(tmp_path / "work"),
    }
    command = [bwrap, "--dev-bind", "/", "/", *seen, "--die-with-parent", "--", sys.executable, "-m", "worker"]
    command.append("--unsafe-no-sandbox")
    worker = Process("lonely", command, {**os.environ, **variables}, tmp_path / "worker.log")
    worker.start()
    yield worker
    worker.end()


def _bound(path: Path) -> list[str]:
    return ["--bind", str(path), f"/etc/{path.name}"]


async def test_the_worker_resolves_the_name_of_redis_again_after_a_failure(
    own: Rig, server: OwnValkey, lonely: Process, hosts: Path
) -> None:
    def misses() -> int:
        return lonely.log().count("queue.unreachable")

    for _ in range(2):
        known = misses()
        await asyncio.to_thread(wait_until, lambda: misses() > known + 1, "Redis is not found", GENEROUS_S)  # noqa: B023
        hosts.write_text(f"127.0.0.1 {NAME}\n")
        run_id = await own.submit(plan=[PlanStep(tool="message", args={"text": "x"})])
        assert (await own.ended(run_id)).status is Status.SUCCEEDED
        hosts.write_text("")
        server.stop()
        server.start()
    assert lonely.is_alive()


async def test_a_drained_worker_exits_without_redis(
    own: Rig, server: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker cannot release its run, so the lease must expire."""
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
