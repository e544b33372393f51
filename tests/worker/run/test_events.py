"""Events of a worker: valid by the schema, within the size limit, long texts split without loss."""

from typing import Any

import pytest

from infra.contract.log import Event
from infra.contract.runs import MAX_ERROR_CHARS, PlanStep
from infra.contract.states import Status
from tests.support import events as support
from tests.support.waiting import until
from tests.worker.rig import Rig
from worker.toolkit.base import ToolContext, ToolFailed, ToolResult

KEPT = (".run/step-0.stdout", ".run/step-0.stderr")
HOSTILE = "\0" * 20_000 + '"\\' * 20_000 + "😀\n" * 20_000 + "x" * 20_000


async def checked(rig: Rig, run_id: str) -> list[Event]:
    """Return the whole log; each event must be valid."""
    events = await rig.log(run_id)
    for event in events:
        support.check(event)
    return events


def of_type(events: list[Event], kind: str) -> list[dict[str, Any]]:
    return [event.data for event in events if event.type == kind]


def joined(events: list[dict[str, Any]]) -> list[str]:
    """Return the texts of events, with split texts joined."""
    texts, begun = [], ""
    for data in events:
        begun += data["text"]
        if not data.get("more"):
            texts.append(begun)
            begun = ""
    assert not begun
    return texts


async def test_long_texts_are_split_without_loss(rig: Rig) -> None:
    async def body(context: ToolContext, command: str) -> None:
        await context.output("stdout", HOSTILE)
        await context.message(HOSTILE)
        await context.output("stderr", "short")
        await context.output("stderr", HOSTILE, more=True)
        await context.output("stderr", "end")

    rig.worker(body)
    run_id = await rig.submit("x")
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    events = await checked(rig, run_id)
    assert joined(of_type(events, "message")) == [HOSTILE]
    output = of_type(events, "tool.output")
    assert joined([data for data in output if data["stream"] == "stdout"]) == [HOSTILE]
    assert joined([data for data in output if data["stream"] == "stderr"]) == ["short", HOSTILE + "end"]


async def test_arguments_and_errors_are_truncated(rig: Rig) -> None:
    async def body(context: ToolContext, command: str) -> None:
        raise ToolFailed("exit_code", HOSTILE, ToolResult(kept=KEPT))

    rig.worker(body)
    run_id = await rig.submit(plan=[PlanStep(tool="shell", name="n" * 200, args={"command": HOSTILE})])
    record = await rig.ended(run_id)
    assert record.error
    assert record.error.message == HOSTILE[: MAX_ERROR_CHARS - 1] + "…"
    events = await checked(rig, run_id)
    (started,), (finished,), ended = of_type(events, "tool.started"), of_type(events, "tool.finished"), events[-1].data
    assert started["args"] == {"command": HOSTILE[:199] + "…"}
    assert finished["message"] == ended["error"]["message"] == HOSTILE[:1999] + "…"
    assert finished["kept"] == list(KEPT)
    assert of_type(events, "step.started") == [{"name": "n" * 200, "tool": "shell"}]


@pytest.mark.parametrize("kept", [(), KEPT])
async def test_the_event_names_the_files_with_the_complete_output(rig: Rig, kept: tuple[str, ...]) -> None:
    async def body(context: ToolContext, command: str) -> ToolResult:
        return ToolResult(kept=kept)

    rig.worker(body)
    run_id = await rig.submit("x")
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    (finished,) = of_type(await checked(rig, run_id), "tool.finished")
    assert finished.get("kept") == (list(kept) or None)


async def test_the_log_of_a_retried_run_fits_the_schema(rig: Rig) -> None:
    fails = True

    async def body(context: ToolContext, command: str) -> None:
        if fails:
            raise ToolFailed("exit_code", "exit code 1")

    worker = rig.worker(body)
    run_id = await rig.submit("x")
    assert (await rig.ended(run_id)).status is Status.FAILED
    fails = False
    await rig.store.retry(run_id, token="t")

    async def succeeded() -> bool:
        return (await rig.store.get(run_id)).status is Status.SUCCEEDED

    await until(succeeded, "the retried run succeeds")
    kinds = {event.type for event in await checked(rig, run_id)}
    assert {"run.started", "run.retried", "run.resumed", "tool.finished", "run.finished"} <= kinds
    await worker.drained()
