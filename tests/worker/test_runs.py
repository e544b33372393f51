"""Outcomes of a run: success, failure, cancel, timeout, takeover."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from infra.contract.errors import FilesUnavailable
from infra.contract.runs import PlanStep, RunSpec
from infra.contract.states import Outcome, Status
from tests.support.waiting import until
from tests.worker.rig import LEASE_S, Gate, Rig
from worker.plan import PlanWalker
from worker.plan_or_prompt import PlanOrPrompt
from worker.toolkit.base import ToolContext, ToolFailed


async def test_a_plan_succeeds_and_logs_its_steps(rig: Rig) -> None:
    async def body(context: ToolContext, command: str) -> None:
        await context.output("stdout", f"{context.call} {command}")

    rig.worker(body)
    run_id = await rig.submit("one", "two")
    record = await rig.ended(run_id)
    step = ["step.started", "tool.started", "tool.output", "tool.finished", "step.finished"]
    assert record.status is Status.SUCCEEDED
    assert record.result == {"steps": 2, "last": {}}
    assert await rig.kinds(run_id) == ["run.started", *step, *step, "run.finished"]
    texts = [event.data["text"] for event in await rig.log(run_id) if event.type == "tool.output"]
    assert texts == ["step-0 one", "step-1 two"]


async def test_a_failed_step_fails_the_run_under_its_index(rig: Rig) -> None:
    async def body(context: ToolContext, command: str) -> None:
        if command == "bad":
            raise ToolFailed("exit_code", "exit code 3: no such thing")

    rig.worker(body)
    run_id = await rig.submit("good", "bad", "never")
    record = await rig.ended(run_id)
    assert record.status is Status.FAILED
    assert record.error
    assert (record.error.code, record.error.step) == ("exit_code", 1)
    last = (await rig.log(run_id))[-1]
    assert last.data == {
        "status": "failed",
        "error": {"code": "exit_code", "message": "exit code 3: no such thing", "step": 1},
    }
    assert (await rig.store.depths()).dead == 1


async def test_an_unexpected_error_fails_the_run_without_revealing_internals(rig: Rig) -> None:
    async def body(context: ToolContext, command: str) -> None:
        raise ZeroDivisionError("secret detail")

    rig.worker(body)
    record = await rig.ended(await rig.submit("x"))
    assert record.error
    assert record.error.code == "internal_error"
    assert "secret" not in record.error.message


async def test_a_prompt_without_a_model_fails_with_the_reason(rig: Rig) -> None:
    rig.worker(strategy=PlanOrPrompt(PlanWalker({}), None))
    record = await rig.ended(await rig.submit(prompt="do something"))
    assert record.error
    assert record.error.code == "no_model"
    assert "explicit plan" in record.error.message
    assert "LLM_BASE_URL" in record.error.message


async def test_a_run_is_stopped_at_its_timeout(rig: Rig) -> None:
    gate = Gate()
    rig.worker(gate)
    record = await rig.ended(await rig.submit("wait", timeout_s=1))
    assert record.error
    assert record.error.code == "timeout"
    assert gate.cancelled == [*gate.calls]  # none, if the machine stands still before the step


async def test_a_run_is_retried_after_a_failure_of_the_object_store(rig: Rig) -> None:
    calls = 0

    async def body(context: ToolContext, command: str) -> None:
        nonlocal calls
        calls += 1
        if calls < 2:
            raise FilesUnavailable("away")

    rig.worker(body)
    run_id = await rig.submit("x")
    record = await rig.ended(run_id)
    assert (record.status, record.attempt, calls) == (Status.SUCCEEDED, 2, 2)
    assert "run.requeued" in await rig.kinds(run_id)


async def test_cancel_reaches_a_running_tool(rig: Rig) -> None:
    gate = Gate()
    rig.worker(gate)
    run_id = await rig.submit("wait")
    await gate.reached("wait")
    await rig.store.cancel(run_id)
    assert (await rig.ended(run_id)).status is Status.CANCELLED
    assert gate.cancelled == ["wait"]
    assert (await rig.kinds(run_id))[-1] == "run.finished"


async def test_a_cancel_whose_control_message_was_lost_arrives_with_the_renewal(rig: Rig) -> None:
    gate = Gate()
    rig.worker(gate, renew_s=0.2)
    run_id = await rig.submit("wait")
    await gate.reached("wait")
    await rig.redis.command("HSET", f"run:{run_id}", "cancel", "1")
    assert (await rig.ended(run_id)).status is Status.CANCELLED


async def test_a_cancel_between_attempts_ends_the_run_before_any_work(rig: Rig) -> None:
    gate = Gate()
    run_id = await rig.submit("wait")
    (claim,) = (await rig.store.claim("gone", 1, lease_ms=1)).claims
    assert claim.run.id == run_id
    assert await rig.store.cancel(run_id) == (Outcome.OK, Status.RUNNING)
    rig.worker(gate)
    assert (await rig.ended(run_id)).status is Status.CANCELLED
    assert not gate.calls


async def test_another_worker_continues_at_the_first_step_without_a_result(rig: Rig) -> None:
    gate = Gate()
    first = rig.worker(gate)
    run_id = await rig.submit("one", "two", "wait", "three")
    await gate.reached("wait")
    await first.killed()
    await rig.expire_lease(run_id)
    second = Gate()
    second.go.set()
    rig.worker(second)
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert gate.calls == {"one": 1, "two": 1, "wait": 1}
    assert second.calls == {"wait": 1, "three": 1}
    kinds = await rig.kinds(run_id)
    assert "run.resumed" in kinds
    assert kinds.count("run.finished") == 1


async def test_a_sleeping_worker_takes_over_from_a_lost_one(rig: Rig) -> None:
    gates = [Gate(), Gate()]
    workers = [rig.worker(gate, lease_s=2.0) for gate in gates]

    async def blocked() -> bool:
        return "blocked_clients:2" in str(await rig.redis.command("INFO", "clients"))

    await until(blocked, "both workers sleep")
    run_id = await rig.submit("wait")

    async def taken() -> bool:
        return any(gate.calls for gate in gates)

    await until(taken, "one of them takes the run")
    lost = 0 if gates[0].calls else 1
    gates[1 - lost].go.set()
    await workers[lost].killed()
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert gates[1 - lost].calls == {"wait": 1}


async def test_a_worker_that_lost_its_lease_stops_and_writes_nothing_more(rig: Rig) -> None:
    gate = Gate()
    worker = rig.worker(gate, renew_s=0.2)
    run_id = await rig.submit("wait")
    await gate.reached("wait")
    # The lease is set not to expire, as if a new owner renewed it: otherwise this worker would claim the run again.
    lease = ("ZADD", "jobs:leases", "XX", 10**15, run_id)
    await rig.redis.pipeline([("HSET", f"run:{run_id}", "fence", "9"), lease])
    before = (await rig.store.get(run_id)).seq

    async def stopped() -> bool:
        return gate.cancelled == ["wait"] and len(worker.keeper) == 0

    await until(stopped, "the worker abandons the run")
    record = await rig.store.get(run_id)
    assert (record.status, record.seq) == (Status.RUNNING, before)


async def test_many_runs_on_two_workers_run_once_each(rig: Rig) -> None:
    gate = Gate()
    run_ids = [await rig.submit(f"job {n}") for n in range(40)]
    for _ in range(2):
        rig.worker(gate, slots=3)
    for run_id in run_ids:
        assert (await rig.ended(run_id)).status is Status.SUCCEEDED
        assert (await rig.kinds(run_id)).count("run.finished") == 1
    assert set(gate.calls.values()) == {1}
    depths = await rig.store.depths()
    assert (depths.pending, depths.ready, depths.running) == (0, 0, 0)


async def test_an_idle_worker_wakes_for_a_new_run(rig: Rig) -> None:
    rig.worker()

    async def blocked() -> bool:
        return "blocked_clients:1" in str(await rig.redis.command("INFO", "clients"))

    await until(blocked, "the worker sleeps")
    assert (await rig.ended(await rig.submit("x"))).status is Status.SUCCEEDED


@pytest.mark.parametrize("script", ["emit", "finish", "renew"])
async def test_lost_replies_neither_lose_nor_repeat_an_event(rig: Rig, script: str) -> None:
    seen: Counter[str] = Counter()

    def loses(name: str) -> bool:
        seen[name] += 1
        return name == script and seen[name] % 2 == 1

    async def sent_again() -> bool:
        return seen[script] > 1

    async def body(context: ToolContext, command: str) -> None:
        for number in range(5):
            await context.output("stdout", f"{command} {number}")
            await asyncio.sleep(0.06)
        if script == "renew":
            await until(sent_again, "the lease is renewed again")

    rig.worker(body, loses=loses, renew_s=0.1 if script == "renew" else LEASE_S)
    run_id = await rig.submit("a", "b")
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    texts = [event.data["text"] for event in await rig.log(run_id) if event.type == "tool.output"]
    assert texts == [f"{command} {number}" for command in "ab" for number in range(5)]
    await until(sent_again, f"{script} is sent again")


async def test_a_flood_of_output_is_stored_completely_and_in_order(rig: Rig) -> None:
    async def body(context: ToolContext, command: str) -> None:
        for number in range(5000):
            await context.output("stdout", f"{number} {'x' * 200}")

    rig.worker(body)
    run_id = await rig.submit("flood")
    await rig.ended(run_id)
    texts = [event.data["text"] for event in await rig.log(run_id) if event.type == "tool.output"]
    assert [int(text.split()[0]) for text in texts] == list(range(5000))
    entries = await rig.redis.command("XLEN", f"run:{run_id}:log")
    assert isinstance(entries, int)
    assert entries < 100


async def test_a_message_is_logged_as_an_event(rig: Rig) -> None:
    rig.worker()
    step = PlanStep(tool="message", args={"text": "grüezi"})
    run_id = "run_message"
    await rig.store.create(run_id, "ada", RunSpec(plan=[step]), start=True, digest="d")
    await rig.ended(run_id)
    assert [event.data for event in await rig.log(run_id) if event.type == "message"] == [{"text": "grüezi"}]


async def test_an_interrupted_non_idempotent_call_is_repeated_only_by_a_retry(rig: Rig) -> None:
    def only_once(args: Mapping[str, Any]) -> bool:
        return args == {"command": "once"}

    gate = Gate()
    first = rig.worker(gate, idempotent=only_once)
    run_id = await rig.submit("once", "wait", "after")
    await gate.reached("wait")
    await first.killed()
    await rig.expire_lease(run_id)
    rig.worker(gate, idempotent=only_once)
    record = await rig.ended(run_id)
    assert record.status is Status.FAILED
    assert record.error
    assert (record.error.code, record.error.step) == ("interrupted", 1)
    assert gate.calls == {"once": 1, "wait": 1}
    gate.go.set()
    await rig.store.retry(run_id, token="t")
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert gate.calls == {"once": 1, "wait": 2, "after": 1}


async def test_a_worker_suspended_past_its_lease_begins_no_step(rig: Rig) -> None:
    calls: list[str] = []

    async def body(context: ToolContext, command: str) -> None:
        calls.append(command)
        if command == "freeze":
            (active,) = worker.keeper.runs()
            active.valid_until = 0.0

    worker = rig.worker(body)
    run_id = await rig.submit("freeze", "after")

    async def has_abandoned_it() -> bool:
        return calls == ["freeze"] and len(worker.keeper) == 0

    await until(has_abandoned_it, "the worker abandons the run")
    await rig.expire_lease(run_id)
    assert (await rig.ended(run_id)).status is Status.SUCCEEDED
    assert calls == ["freeze", "after"]
    kinds = await rig.kinds(run_id)
    assert kinds.index("run.resumed") < kinds.index("step.started", kinds.index("step.finished"))
