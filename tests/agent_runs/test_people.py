"""Runs that ask people: questions, approvals, denials, messages, interrupts."""

import asyncio
from typing import Any

from infra.contract.agent import ApprovalRule
from infra.contract.requests import GivenAnswer
from infra.contract.states import Outcome, Status
from tests.agent_runs.script import finish, plan
from tests.agent_runs.site import AgentSite
from tests.support.waiting import until

WRITE = ("file_write", {"path": "a.txt", "content": "one"})
ASK = [ApprovalRule(tool="file_write", policy="ask")]


async def answer(site: AgentSite, run_id: str, **given: Any) -> Outcome:
    """Answer the only open request."""
    (request,) = (await site.waits(run_id)).values()
    outcome, _, _ = await site.store.resume(run_id, {request.id: GivenAnswer(**given)}, by="bea", token=request.id)
    return outcome


async def test_an_approved_call_is_executed_exactly_as_it_was_shown(site: AgentSite) -> None:
    script = site.script(plan("Write"), [("message", {"text": "hi"}), WRITE], finish())
    site.worker()
    run_id = await site.submit(approvals=ASK)
    (request,) = (await site.waits(run_id)).values()
    assert (request.kind, request.tool, request.args) == ("approval", *WRITE)
    # Nothing of a reply is executed before all of its calls are decided.
    assert "tool.started" not in [event.type for event in await site.log(run_id)]
    assert await answer(site, run_id, approve=True) is Outcome.OK
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    assert await site.files(run_id) == {"a.txt": b"one"}
    assert script.asked == {0: 1, 1: 1, 2: 1}


async def test_a_denied_call_is_not_executed_and_the_model_is_told_why(site: AgentSite) -> None:
    site.script(
        plan("Write"), WRITE, lambda chat: finish("Not written.") if "wrong file" in chat.last else "I did not hear it."
    )
    site.worker()
    run_id = await site.submit(approvals=ASK)
    await answer(site, run_id, approve=False, comment="wrong file")
    run = await site.ended(run_id)
    assert run.result is not None
    assert run.result["summary"] == "Not written."
    assert await site.files(run_id) == {}


async def test_a_message_during_a_reply_is_read_by_the_next_exchange(site: AgentSite) -> None:
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(chat: Any) -> Any:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(20)
        return finish("Too early.")

    script = site.script(
        plan("Wait"),
        slow,
        lambda chat: plan("Be quick") if "be quick" in str(chat.messages) else "What?",
        finish("Heard it."),
    )
    site.worker()
    run_id = await site.submit()
    await until(lambda: _true(script.asked[1] == 1), "the model is asked")
    await site.store.message(run_id, "be quick", by="bea", token="m1")
    gate.set()
    run = await site.ended(run_id)
    assert run.result is not None
    assert run.result["summary"] == "Heard it."
    ended = [event.step for event in await site.log(run_id) if event.type == "step.finished"]
    assert ended == [0, 1]


async def test_an_interrupt_stops_the_call_under_way_and_the_model_hears_the_message(site: AgentSite) -> None:
    script = site.script(
        plan("Sleep"),
        [("shell", {"command": "sleep 60"}), WRITE],
        lambda chat: finish("Stopped.") if "never mind" in chat.last and "interrupted" in chat.results[0] else "What?",
    )
    site.worker()
    run_id = await site.submit()

    async def sleeps() -> bool:
        return any(event.type == "tool.started" for event in await site.log(run_id))

    await until(sleeps, "the program sleeps")
    await site.store.interrupt(run_id)
    await answer(site, run_id, input="never mind")
    run = await site.ended(run_id)
    assert run.error is None
    assert run.result is not None
    assert run.result["summary"] == "Stopped."
    assert await site.files(run_id) == {}
    assert script.asked == {0: 1, 1: 1, 2: 1}


async def _true(value: bool) -> bool:
    return value
