"""Messages, approvals, interrupts and limits when workers die, freeze or hand over."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from infra.contract.agent import ApprovalRule, Limits
from infra.contract.requests import GivenAnswer
from infra.contract.states import Outcome, Status
from infra.settings import RedisTcpSettings, S3Settings
from infra.workspace import Workspaces
from tests.agent_runs.killing import Mortal, When
from tests.agent_runs.script import Conversation, Gate, Say, Step, finish, plan
from tests.agent_runs.site import AgentSite
from tests.support.waiting import until
from tests.worker.rig import Rig

SAY = ("message", {"text": "hi"})
WRITE = ("file_write", {"path": "a.txt", "content": "one"})
TEXT = "Use another colour, please."


def count_of(chat: Conversation, text: str) -> int:
    return str(chat.messages).count(text)


KEYS = ["setup", "model:0", "inbox:1", "model:1", "tool:1:0", "model:2", "finish"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("key", KEYS)
async def test_a_message_is_read_once_whenever_the_worker_dies(site: AgentSite, key: str, when: When) -> None:
    # `inbox:1` is written only because of a first message.
    gate = Gate(plan("Say"))

    def plan_or_finish(chat: Conversation) -> Say:
        return plan("Answer") if chat.tools == ["plan"] else finish("Late.")

    begin = gate if key == "inbox:1" else plan("Say")
    script = site.script(begin, SAY, finish("Early."), *[plan_or_finish] * 3)
    worker = Mortal(site, key, when)
    run_id = await site.submit(stream=False)
    if key == "inbox:1":
        await until(gate.reached, "the model is asked")
        await site.store.message(run_id, "The first message.", by="bea", token="m0")
        gate.open()
    await asyncio.wait_for(worker.dead.wait(), 30)
    outcome, _ = await site.store.message(run_id, TEXT, by="bea", token="m1")
    await worker.dies_now()
    worker.heir()
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    has_ended = (key, when) == ("finish", "after")
    assert outcome is (Outcome.REFUSED if has_ended else Outcome.OK)
    last = script.seen[-1]
    assert (count_of(last, TEXT), count_of(last, "The first message.")) == (not has_ended, key == "inbox:1")


async def test_a_message_after_the_end_is_refused(site: AgentSite) -> None:
    site.script(plan("Nothing"), finish())
    site.worker()
    run_id = await site.submit(stream=False)
    await site.ended(run_id)
    assert (await site.store.message(run_id, TEXT, by="bea", token="m1"))[0] is Outcome.REFUSED


async def test_the_answer_to_an_interrupt_is_read_by_the_exchange_that_was_interrupted(site: AgentSite) -> None:
    first = Gate(plan("Say"))
    script = site.script(first, lambda chat: site.server.hang)
    site.worker()
    run_id = await site.submit(stream=False)
    await until(first.reached, "the model is asked")
    await site.store.message(run_id, "The first message.", by="bea", token="m1")
    first.open()
    await until(lambda: _true(lambda: script.asked[1] == 1), "the model is asked again")
    script.steps = [*script.steps[:1], finish("Heard.")]
    await site.store.interrupt(run_id)
    await answer(site, run_id, input=TEXT)
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    assert script.asked == {0: 1, 1: 2}
    assert (count_of(script.seen[-1], TEXT), count_of(script.seen[-1], "The first message.")) == (1, 1)


async def test_a_run_that_is_interrupted_again_before_it_reads_the_first_answer_reads_both(site: AgentSite) -> None:
    script = site.script(plan("Say"), lambda chat: site.server.hang)
    worker = site.worker()
    run_id = await site.submit(stream=False)
    await until(lambda: _true(lambda: script.asked[1] == 1), "the model is asked again")
    await site.store.interrupt(run_id)
    await site.waits(run_id)
    await worker.drained()
    await answer(site, run_id, input="The first answer.")
    await site.store.interrupt(run_id)  # nobody has claimed the run meanwhile
    script.steps = [*script.steps[:1], finish("Heard.")]
    site.worker()
    await answer(site, run_id, input=TEXT)
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    assert (count_of(script.seen[-1], "The first answer."), count_of(script.seen[-1], TEXT)) == (1, 1)


@pytest.mark.parametrize(("key", "when"), [("asked:1", "before"), ("asked:1", "after"), ("tool:1:1", "before")])
async def test_an_approved_call_is_executed_after_a_kill_without_another_question(
    site: AgentSite, key: str, when: When
) -> None:
    script = site.script(plan("Write"), [SAY, WRITE], finish(files=["a.txt"]))
    worker = Mortal(site, key, when)
    run_id = await site.submit(stream=False, approvals=[ApprovalRule(tool="file_write", policy="ask")])
    await answer(site, run_id, approve=True)
    await worker.dies()
    worker.heir()
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    kinds = [event.type for event in await site.log(run_id)]
    assert (kinds.count("run.waiting"), kinds.count("run.input")) == (1, 1)
    assert script.asked == {0: 1, 1: 1, 2: 1}
    assert await site.files(run_id) == {"a.txt": b"one"}


@pytest.mark.parametrize("on_expiry", ["deny", "fail"])
async def test_a_request_that_expires_denies_the_call_or_fails_the_run(site: AgentSite, on_expiry: Any) -> None:
    site.script(plan("Write"), WRITE, lambda chat: finish("Denied.") if "in time" in chat.last else "What?")
    site.worker()
    rule = ApprovalRule(tool="file_write", policy="ask", expires_s=0.2, on_expiry=on_expiry)
    run = await site.ended(run_id := await site.submit(stream=False, approvals=[rule]))
    if on_expiry == "deny":
        assert run.result is not None
        assert run.result["summary"] == "Denied."
    else:
        assert run.error is not None
        assert run.error.code == "approval_expired"
    assert await site.files(run_id) == {}


async def test_after_waits_on_several_workers_all_is_done_and_paid_once(site: AgentSite) -> None:
    def ask(number: int) -> Step:
        line = {"command": f"echo {number} >> log.txt"}
        return [("shell", line), ("ask_user", {"question": f"Question {number}?"})]

    count = 4
    script = site.script(plan("Ask"), *map(ask, range(count)), finish(files=["log.txt"]))
    run_id = await site.submit(stream=False, max_attempts=1)
    for number in range(count):
        worker = site.worker()
        await answer(site, run_id, input=f"Answer {number}")
        await worker.drained()
    site.worker()
    run = await site.ended(run_id)
    assert run.status is Status.SUCCEEDED
    # The shell of a reply runs after the answer, once.
    assert (await site.files(run_id))["log.txt"] == b"0\n1\n2\n3\n"
    assert script.asked == dict.fromkeys(range(count + 2), 1)
    assert run.usage is not None
    assert (run.usage.exchanges, run.usage.input, run.usage.output) == (6, 600, 120)
    assert (await site.store.attempts(run_id))[-1].attempt == 1


@pytest.mark.parametrize(
    ("limits", "code", "calls", "key", "when"),
    [
        (Limits(turns=3), "limit_turns", 4, "model:2", "after"),
        (Limits(tool_calls=3), "limit_tool_calls", 3, "tool:2:0", "after"),
        (Limits(tool_calls=3), "limit_tool_calls", 3, "model:2", "before"),
        (Limits(repeats=3), "limit_repeats", 3, "tool:2:0", "after"),
        (Limits(repeats=3), "limit_repeats", 3, "finish", "before"),
        (Limits(output_tokens=20 * 3 + 255), "limit_output_tokens", 4, "tool:1:1", "after"),
    ],
)
async def test_a_limit_ends_a_run_that_was_killed_at_the_same_call(
    site: AgentSite, limits: Limits, code: str, calls: int, key: str, when: When
) -> None:
    site.script(plan("Say"), *[[SAY, SAY]] * 6)
    worker = Mortal(site, key, when)
    run_id = await site.submit(stream=False, limits=limits)
    await worker.dies()
    worker.heir()
    run = await site.ended(run_id)
    assert run.error is not None
    assert run.error.code == code
    finished = [event for event in await site.log(run_id) if event.type == "tool.finished"]
    assert len(finished) == calls


class Elsewhere(threading.Thread):
    """Worker with an event loop of its own, which can be frozen as a whole."""

    def __init__(self, tcp: RedisTcpSettings, s3: S3Settings, site: AgentSite) -> None:
        super().__init__(daemon=True)
        self._tcp = tcp
        self._s3 = s3
        self._site = site
        self._thawed = threading.Event()
        self.ready = threading.Event()

    def run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        workspaces = Workspaces(self._s3)
        site = AgentSite(Rig(self._tcp), workspaces, self._site.executor, self._site.server)
        self._worker = site.worker()
        self.ready.set()
        await self._ended.wait()
        await site.rig.close()
        await site.close()
        workspaces.close()

    async def is_idle(self) -> bool:
        return len(self._worker.keeper) == 0

    def freeze(self) -> None:
        self._loop.call_soon_threadsafe(self._thawed.wait)

    def thaw(self) -> None:
        self._thawed.set()

    def end(self) -> None:
        self.thaw()
        self._loop.call_soon_threadsafe(self._ended.set)
        self.join(30)


async def test_a_worker_frozen_in_a_model_call_writes_nothing_once_its_lease_is_lost(
    site: AgentSite, tcp: RedisTcpSettings, s3: S3Settings
) -> None:
    old, end = Gate(("message", {"text": "old"})), Gate(finish("New."))

    def first_or_second(chat: Conversation) -> Say:
        return old(chat) if script.asked[1] == 1 else ("message", {"text": "new"})

    script = site.script(plan("Say"), first_or_second, end)
    frozen = Elsewhere(tcp, s3, site)
    frozen.start()
    try:
        await asyncio.to_thread(frozen.ready.wait, 20)
        run_id = await site.submit(stream=False)
        await until(old.reached, "the first worker asks the model")
        frozen.freeze()
        await site.rig.expire_lease(run_id)
        site.worker()
        await until(end.reached, "the second worker has gone on", timeout_s=60)

        async def is_logged() -> bool:
            return any(event.type == "model.started" and event.data["n"] == 2 for event in await site.log(run_id))

        await until(is_logged, "the log has all that the second worker has done")
        before = await site.log(run_id)
        old.open()
        frozen.thaw()
        await until(frozen.is_idle, "the first worker has given up")
        assert await site.log(run_id) == before
        end.open()
        run = await site.ended(run_id)
    finally:
        old.open()
        end.open()
        await asyncio.to_thread(frozen.end)
    assert run.result is not None
    assert run.result["summary"] == "New."
    assert run.usage is not None
    assert run.usage.exchanges == 3
    assert [event.data["text"] for event in await site.log(run_id) if event.type == "message"] == ["new"]


async def _true(predicate: Callable[[], bool]) -> bool:
    return predicate()


async def answer(site: AgentSite, run_id: str, **given: Any) -> None:
    """Answer the only open request of a waiting run."""
    (request,) = (await site.waits(run_id)).values()
    answers = {request.id: GivenAnswer(**given)}
    outcome, _, _ = await site.store.resume(run_id, answers, by="bea", token=request.id)
    assert outcome is Outcome.OK
