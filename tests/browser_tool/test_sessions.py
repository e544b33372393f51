"""Sessions of runs on real workers: kept between the steps, and ended with the claim."""

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from infra.contract.errors import ExecutorUnavailable
from infra.contract.runs import PlanStep, RunRecord
from infra.contract.states import TERMINAL, Status
from infra.contract.tools import ShellArgs
from infra.settings import RedisTcpSettings
from tests.browser_tool.rig import BrowserBench
from tests.support.processes import children_of
from tests.support.servers import valkey_fixture
from tests.support.waiting import until
from tests.worker.rig import Gate, NoFiles, Rig, Worker
from worker.plan import PlanWalker
from worker.toolkit.base import Tool, ToolContext, ToolResult

tcp = valkey_fixture()


@pytest_asyncio.fixture(loop_scope="session")
async def rig(tcp: RedisTcpSettings) -> AsyncIterator[Rig]:
    made = Rig(tcp)
    await made.redis.command("FLUSHALL")
    yield made
    await made.close()


def step(bench: BrowserBench, action: str, **args: Any) -> PlanStep:
    if "url" in args:
        args["url"] = bench.site.url + args["url"]
    return PlanStep(tool="browser", args={"action": action, **args})


def worker(rig: Rig, bench: BrowserBench, gate: Gate, **options: Any) -> Worker:
    """Start a worker with the browser of a bench; its `shell` is a gate."""

    async def shell(args: ShellArgs, context: ToolContext) -> ToolResult:
        await gate(context, args.command)
        return ToolResult()

    tools = {"browser": bench.tool, "shell": Tool("shell", ShellArgs, shell, idempotent=True)}
    return rig.worker(executor=options.pop("executor", bench.executor), strategy=PlanWalker(tools), **options)


async def ended(rig: Rig, run_id: str) -> RunRecord:
    """Return the record of a run that has ended; the start of a browser takes long on a busy machine."""

    async def terminal() -> bool:
        return (await rig.store.get(run_id)).status in TERMINAL

    await until(terminal, f"{run_id} ends", timeout_s=110)
    return await rig.store.get(run_id)


async def test_a_session_lasts_for_the_run(rig: Rig, fresh: BrowserBench) -> None:
    before = children_of(os.getpid())
    worker(rig, fresh, Gate())
    steps = [step(fresh, "open", url="/"), step(fresh, "click", selector="text=Second page"), step(fresh, "extract")]
    run = await ended(rig, await rig.submit(plan=steps))
    assert run.status is Status.SUCCEEDED, run.error
    assert run.result
    last: Any = run.result["last"]
    assert (last["title"], last["text"]) == ("Two", "The second page")
    assert children_of(os.getpid()) <= before


async def test_a_lost_worker_loses_the_session_and_a_click_is_not_repeated(rig: Rig, fresh: BrowserBench) -> None:
    gate = Gate()
    first = worker(rig, fresh, gate)
    echoes = fresh.site.requests["/echo"]
    steps = [
        step(fresh, "open", url="/"),
        PlanStep(tool="shell", args={"command": "wait"}),
        step(fresh, "click", selector="button"),
    ]
    run_id = await rig.submit(plan=steps)
    await until(lambda: _is_reached(gate), "the page is open", timeout_s=110)
    await first.killed()
    await rig.expire_lease(run_id)
    gate.go.set()
    worker(rig, fresh, gate)
    run = await ended(rig, run_id)
    assert run.error
    assert (run.error.code, run.error.step) == ("session_lost", 2)
    assert f"the last page was {fresh.site.url}/;" in run.error.message
    assert fresh.site.requests["/echo"] == echoes


async def test_a_cancelled_call_leaves_no_process(rig: Rig, fresh: BrowserBench) -> None:
    before = children_of(os.getpid())
    worker(rig, fresh, Gate())
    run_id = await rig.submit(plan=[step(fresh, "open", url="/"), step(fresh, "open", url="/never", timeout_s=300)])

    async def waits() -> bool:
        return fresh.site.requests["/never"] > 0

    fresh.site.requests["/never"] = 0
    await until(waits, "the page is asked for", timeout_s=110)
    await rig.store.cancel(run_id)
    run = await ended(rig, run_id)
    assert run.status is Status.CANCELLED
    assert children_of(os.getpid()) <= before


async def _is_reached(gate: Gate) -> bool:
    return gate.calls["wait"] > 0


class NoSessions(NoFiles):
    """Executor that keeps no session open."""

    async def open(self, *_: object) -> Any:
        raise ExecutorUnavailable("this executor keeps no session open yet")


async def test_an_executor_without_sessions_says_so(rig: Rig, fresh: BrowserBench) -> None:
    worker(rig, fresh, Gate(), executor=NoSessions())
    run = await ended(rig, await rig.submit(plan=[step(fresh, "open", url="/")]))
    assert run.error
    assert (run.error.code, run.error.message) == ("executor_unavailable", "this executor keeps no session open yet")
