"""Timeout of a step: the step is stopped, and the run fails under its index."""

import asyncio

import msgspec
import pytest

from infra.contract.journal import StepRecord
from infra.contract.runs import PlanStep
from infra.contract.states import Status
from tests.worker.rig import Rig
from worker.toolkit.base import ToolContext

LONG_S = 600.0


class Steps:
    """Tool that records its calls and cancellations; with the command `wait` it blocks until `go` is set."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()
        self.left_s: list[float] = []

    async def __call__(self, context: ToolContext, command: str) -> None:
        self.called.append(command)
        self.left_s.append(context.time_left_s)
        try:
            if command == "wait":
                await self.go.wait()
            if command == "bad":
                raise TimeoutError("of a socket")
        except asyncio.CancelledError:
            self.cancelled.append(command)
            raise


def step(command: str, timeout_s: float | None = None) -> PlanStep:
    return PlanStep(tool="shell", args={"command": command}, timeout_s=timeout_s)


async def test_a_step_is_stopped_at_its_timeout_and_fails_the_run_under_its_index(rig: Rig) -> None:
    steps = Steps()
    rig.worker(steps)
    run_id = await rig.submit(plan=[step("quick"), step("wait", 1), step("never")])
    record = await rig.ended(run_id)
    assert record.status is Status.FAILED
    assert record.error
    assert (record.error.code, record.error.step) == ("timeout", 1)
    assert record.error.message == "the step took longer than its timeout of 1 s (`timeout_s` of the step)"
    assert record.attempt == 1
    assert (steps.called, steps.cancelled) == (["quick", "wait"], ["wait"])


async def test_the_log_names_the_step_that_timed_out(rig: Rig) -> None:
    rig.worker(Steps())
    run_id = await rig.submit(plan=[step("quick"), step("wait", 1)])
    await rig.ended(run_id)
    tool, ended, last = (await rig.log(run_id))[-3:]
    assert (tool.type, tool.step) == ("tool.finished", 1)
    assert (tool.data["status"], tool.data["code"]) == ("failed", "timeout")
    assert (ended.type, ended.step, ended.data["status"]) == ("step.finished", 1, "failed")
    assert (last.type, last.data["error"]["code"], last.data["error"]["step"]) == ("run.finished", "timeout", 1)


async def test_steps_faster_than_their_timeouts_succeed(rig: Rig) -> None:
    steps = Steps()
    rig.worker(steps)
    record = await rig.ended(await rig.submit(plan=[step("one", LONG_S), step("two", LONG_S)]))
    assert (record.status, record.error) == (Status.SUCCEEDED, None)
    assert (steps.called, steps.cancelled) == (["one", "two"], [])


async def test_a_retry_repeats_only_the_step_that_timed_out(rig: Rig) -> None:
    steps = Steps()
    rig.worker(steps)
    run_id = await rig.submit(plan=[step("quick"), step("wait", 3), step("after")])
    assert (await rig.ended(run_id)).status is Status.FAILED
    steps.go.set()
    await rig.store.retry(run_id, token="t")
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert steps.called == ["quick", "wait", "wait", "after"]


@pytest.mark.parametrize("run_s", [0.05, LONG_S])
async def test_the_shorter_of_step_and_run_timeout_ends_the_run_and_is_named(rig: Rig, run_s: float) -> None:
    steps = Steps()
    rig.worker(steps)
    step_s = LONG_S if run_s < LONG_S else 0.05
    record = await rig.ended(await rig.submit(plan=[step("wait", step_s)], timeout_s=run_s))
    assert record.error
    assert (record.error.code, record.error.step) == ("timeout", 0 if step_s < run_s else None)
    assert ("the step took" in record.error.message) == (step_s < run_s)
    assert steps.cancelled == steps.called  # a run may time out before its first step


async def test_a_timeout_error_of_a_tool_is_not_the_timeout_of_its_step(rig: Rig) -> None:
    rig.worker(Steps())
    record = await rig.ended(await rig.submit(plan=[step("bad", LONG_S)]))
    assert record.error
    assert record.error.code == "internal_error"


@pytest.mark.parametrize(
    ("run_s", "step_s", "left_s"),
    [
        (100.0, None, 100.0),
        (100.0, 200.0, 100.0),
        (200.0, 100.0, 100.0),
        (86_400.0, None, 3600.0),
        (86_400, 9000, 3600),
    ],
)
async def test_a_call_has_what_is_left_of_its_step_and_its_run_but_at_most_an_hour(
    rig: Rig, run_s: float, step_s: float | None, left_s: float
) -> None:
    steps = Steps()
    rig.worker(steps)
    await rig.ended(await rig.submit(plan=[step("quick", step_s)], timeout_s=run_s))
    assert left_s - 20 < steps.left_s[0] <= left_s


async def test_the_journal_has_the_start_of_a_step(rig: Rig) -> None:
    rig.worker(Steps())
    run_id = await rig.submit(plan=[step("quick")])
    await rig.ended(run_id)
    began = next(event for event in await rig.log(run_id) if event.type == "step.started")
    (entry,) = await rig.store.step_entries(run_id, [0])
    assert entry
    record = msgspec.json.decode(entry, type=StepRecord)
    assert abs((record.started_ms or 0) - began.ts) < 20_000
    assert record.tool == "shell"
