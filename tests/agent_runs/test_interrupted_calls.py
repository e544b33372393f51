"""Calls with effects elsewhere whose worker is lost while they are under way, and retries of ended runs."""

import asyncio
import uuid
from collections import Counter
from typing import Any

from infra.contract.agent import ApprovalRule
from infra.contract.requests import GivenAnswer
from infra.contract.states import Outcome, Status
from infra.contract.tools import MessageArgs
from tests.agent_runs.killing import Mortal
from tests.agent_runs.script import finish, plan
from tests.agent_runs.site import AgentSite
from tests.support.waiting import until
from worker.registry import REGISTRY
from worker.toolkit.base import Tool, ToolContext, ToolResult


class Post:
    """Tool `message` with an effect elsewhere that no crash takes back; its first calls hang."""

    def __init__(self, hangs: int = 0) -> None:
        self.calls: Counter[str] = Counter()
        self.left = hangs
        self.tools = {**REGISTRY, "message": Tool("message", MessageArgs, self._run, idempotent=False)}

    async def _run(self, args: MessageArgs, context: ToolContext) -> ToolResult:
        self.calls[args.text] += 1
        if self.left > 0:
            self.left -= 1
            await asyncio.Event().wait()
        return ToolResult()

    async def called(self, text: str, times: int) -> None:
        async def often() -> bool:
            return self.calls[text] == times

        await until(often, f"'{text}' is sent {times} times")


POST = ("message", {"text": "pay"})


async def answer(site: AgentSite, run_id: str, **given: Any) -> str:
    """Answer the only open request of a waiting run; return its id."""
    (request,) = (await site.waits(run_id)).values()
    outcome, _, _ = await site.store.resume(
        run_id, {request.id: GivenAnswer(**given)}, by="bea", token=uuid.uuid4().hex
    )
    assert outcome is Outcome.OK
    return str(request.id)


async def lost_in_a_call(site: AgentSite, post: Post, **spec: Any) -> tuple[str, Mortal]:
    """Start a run whose worker dies in the call; return it, and the next worker."""
    worker = Mortal(site, strategy=site.agent(tools=post.tools))
    run_id = await site.submit(stream=False, **spec)
    await post.called("pay", 1)
    await worker.dies_now()
    return run_id, worker.heir()


async def test_a_person_lets_an_interrupted_call_be_repeated_and_again(site: AgentSite) -> None:
    post = Post(hangs=2)
    script = site.script(plan("Pay"), POST, finish())
    run_id, worker = await lost_in_a_call(site, post)
    (request,) = (await site.waits(run_id)).values()
    assert (request.tool, request.args, request.choices) == ("message", {"text": "pay"}, ["repeat", "skip", "fail"])
    first = await answer(site, run_id, input="repeat")
    await post.called("pay", 2)
    await worker.dies_now()
    worker = worker.heir()
    # The answer to the first question is none to the second one.
    assert list(await site.waits(run_id)) != [first]
    assert post.calls["pay"] == 2
    await answer(site, run_id, input=" Repeat ")
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    assert post.calls["pay"] == 3
    assert script.asked == {0: 1, 1: 1, 2: 1}


async def test_a_person_lets_an_interrupted_call_be_skipped_with_a_hint(site: AgentSite) -> None:
    post = Post(hangs=1)
    site.script(plan("Pay"), POST, lambda chat: finish("Skipped.") if "it was paid" in chat.last else "What?")
    run_id, _ = await lost_in_a_call(site, post)
    await answer(site, run_id, input="it was paid")
    run = await site.ended(run_id)
    assert run.error is None
    assert post.calls["pay"] == 1


async def test_a_retry_after_fail_makes_the_call_again_and_asks_anew_if_that_is_lost(site: AgentSite) -> None:
    post = Post(hangs=2)
    script = site.script(plan("Pay"), POST, finish())
    run_id, worker = await lost_in_a_call(site, post)
    await answer(site, run_id, input="fail")
    run = await site.ended(run_id)
    assert run.error is not None
    assert run.error.code == "interrupted"
    await site.store.retry(run_id, token="again")
    await post.called("pay", 2)
    await worker.dies_now()
    worker.heir()
    # The answer of before the retry decides nothing.
    await answer(site, run_id, input="skip")
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    assert post.calls["pay"] == 2
    assert script.asked == {0: 1, 1: 1, 2: 1}


async def test_the_model_is_told_that_nobody_knows_what_an_interrupted_call_did(site: AgentSite) -> None:
    post = Post(hangs=1)
    script = site.script(plan("Pay"), [POST, ("message", {"text": "thanks"})], finish())
    site.worker(strategy=site.agent(tools=post.tools))
    run_id = await site.submit(stream=False)
    await post.called("pay", 1)
    await site.store.interrupt(run_id)
    await answer(site, run_id, input="stop it")
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    assert post.calls == {"pay": 1}
    under_way, not_begun = script.seen[2].results
    assert "nobody knows" in under_way
    assert not_begun.startswith("Not executed")


async def test_an_approval_that_a_cancel_overtook_does_not_outlive_a_retry(site: AgentSite) -> None:
    site.script(plan("Pay"), POST, finish())
    post = Post()
    worker = Mortal(site, strategy=site.agent(tools=post.tools))
    run_id = await site.submit(stream=False, approvals=[ApprovalRule(tool="message", policy="ask")])
    await site.waits(run_id)
    await worker.dies_now()
    asked = await answer(site, run_id, approve=True)
    await site.store.cancel(run_id)
    await site.store.retry(run_id, token="again")
    worker.heir()
    assert list(await site.waits(run_id)) == [asked]
    assert post.calls == {}
    outcome, _, _ = await site.store.resume(run_id, {asked: GivenAnswer(approve=True)}, by="bea", token="second")
    assert outcome is Outcome.OK
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    assert post.calls == {"pay": 1}
