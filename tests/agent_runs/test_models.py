"""Models that fail: busy, unavailable, refusing, cut; limits; cancel."""

import asyncio

import pytest

from infra.contract.agent import Limits
from infra.contract.states import Outcome, Status
from tests.agent_runs.script import finish, plan
from tests.agent_runs.site import MODELS, AgentSite
from tests.support.model_server.answers import events, failure, frame, stream, whole
from tests.support.waiting import until

WRITE = ("file_write", {"path": "a.txt", "content": "one"})


async def test_a_busy_model_gives_the_run_back_without_counting_an_attempt(site: AgentSite) -> None:
    script = site.script(failure(429, retry_after="40"), "x")
    site.worker()
    run_id = await site.submit(max_attempts=1)

    async def is_back() -> bool:
        return (await site.store.get(run_id)).status is Status.QUEUED and script.asked[0] > 0

    await until(is_back, "the run is queued again")
    requeued = (await site.log(run_id))[-1]
    assert (requeued.type, requeued.data["reason"]) == ("run.requeued", "model_busy")
    assert 30_000 < requeued.data["delay_ms"] <= 41_000
    assert (await site.store.attempts(run_id))[0].outcome == "drained"


async def test_models_that_stay_busy_end_the_run_which_can_be_retried(
    site: AgentSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.agent.state.MAX_BUSY_MS", 1500)
    script = site.script(failure(429, retry_after="0"))
    site.worker(strategy=site.agent(models=MODELS[:1], max_retries=0))
    run_id = await site.submit(max_attempts=1)
    run = await site.ended(run_id)
    assert run.error is not None
    assert (run.error.code, script.asked[0]) == ("model_busy", 2)
    await site.store.retry(run_id, token="r1")
    await until(lambda: _equal(script.asked[0], 3), "the model is asked again")
    await until(lambda: _has_status(site, run_id, Status.QUEUED), "the run is given back again")


async def test_tokens_of_exchanges_without_a_reply_count_for_the_limits(site: AgentSite) -> None:
    paid = stream(events([frame({"content": "x"}), frame(usage={"prompt_tokens": 50_000, "completion_tokens": 1})]))
    script = site.script(paid)
    site.worker(strategy=site.agent(models=MODELS[:1]))
    run = await site.ended(await site.submit(max_attempts=5, limits=Limits(input_tokens=101_000)))
    assert run.error is not None
    assert run.error.code == "limit_input_tokens"
    assert "has used 100,000 of 101,000" in run.error.message
    assert script.asked[0] == 2


async def test_a_run_without_any_reply_fails_after_its_attempts(site: AgentSite) -> None:
    site.script(*[failure(500)] * 40)
    site.worker()
    run = await site.ended(await site.submit(max_attempts=1))
    assert run.error is not None
    assert run.error.code == "model_unavailable"


async def test_replies_that_are_cut_are_asked_for_again_and_then_given_up(site: AgentSite) -> None:
    script = site.script(
        *[
            whole(
                "I think",
                finish="length",
                calls=[{"id": "x", "type": "function", "function": {"name": "plan", "arguments": "{"}}],
            )
        ]
        * 9
    )
    site.worker()
    run = await site.ended(await site.submit(stream=False))
    assert run.error is not None
    assert run.error.code in {"model_cut", "invalid_plan"}
    assert run.usage is not None
    assert script.asked[0] >= 3


async def test_a_limit_ends_the_run_with_a_partial_result_and_a_raised_one_goes_on(site: AgentSite) -> None:
    script = site.script(
        plan("Write"), [("message", {"text": "hi"}), WRITE], ("shell", {"command": "cat a.txt"}), finish()
    )
    site.worker()
    run_id = await site.submit(limits=Limits(turns=2))
    run = await site.ended(run_id)
    assert run.error is not None
    assert run.error.code == "limit_turns"
    assert run.result is not None
    assert [file["path"] for file in run.result["files"]] == ["a.txt"]
    await site.store.retry(run_id, token="r1", limits=Limits(turns=9))
    run = await site.ended(run_id)
    assert run.error is None
    assert script.asked == {0: 1, 1: 1, 2: 1, 3: 1}


async def test_a_cancel_closes_the_connection_to_the_model(site: AgentSite) -> None:
    script = site.script(lambda chat: site.server.hang)
    site.worker()
    run_id = await site.submit()
    await until(lambda: _equal(script.asked[0], 1), "the model is asked")
    assert (await site.store.cancel(run_id))[0] is Outcome.OK
    assert (await site.ended(run_id)).status is Status.CANCELLED
    await until(lambda: _equal(site.server.left, 1), "the connection is closed")


async def test_a_repeated_call_ends_the_run(site: AgentSite) -> None:
    script = site.script(plan("Look"), *[("shell", {"command": "echo same"})] * 9)
    site.worker()
    run = await site.ended(await site.submit())
    assert run.error is not None
    assert run.error.code == "limit_repeats"
    assert script.asked.total() == 6
    assert "3 in a row" in script.seen[4].last


async def test_a_finish_is_checked(site: AgentSite) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    site.script(
        plan("Write"),
        finish(files=["missing.txt"], output={"n": 1}),
        lambda chat: finish(output={"n": "x"}) if "no file 'missing.txt'" in chat.last else "What?",
        lambda chat: finish(output={"n": 2}) if "output.n" in chat.last else "What?",
    )
    site.worker()
    run = await site.ended(await site.submit(output_schema=schema))
    assert run.error is None
    assert run.result is not None
    assert run.result["output"] == {"n": 2}


async def test_a_model_that_only_talks_is_given_up(site: AgentSite) -> None:
    script = site.script(plan("Talk"), *["Let me think."] * 9)
    site.worker()
    run_id = await site.submit()
    run = await site.ended(run_id)
    assert run.error is not None
    assert run.error.code == "unfinished"
    assert script.asked.total() == 5
    # A retry gives the model one more try.
    await site.store.retry(run_id, token="r1")
    await until(lambda: _equal(script.asked.total(), 6), "the model is asked once more")
    await asyncio.sleep(0)


async def _has_status(site: AgentSite, run_id: str, status: Status) -> bool:
    return (await site.store.get(run_id)).status is status


async def _equal(one: object, other: object) -> bool:
    return one == other
