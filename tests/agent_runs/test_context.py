"""Streams that break, contexts that fill up, constrained models, and what ends or bounds a run."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from infra.contract.agent import Limits
from infra.contract.keys import Keys
from infra.contract.redis_store.run_index import RunIndex
from infra.contract.states import Outcome, Status
from tests.agent_runs.killing import Mortal
from tests.agent_runs.script import Conversation, Say, answer_of, finish, plan
from tests.agent_runs.site import AgentSite
from tests.support.model_server.answers import Ending, events, failure, frames, stream
from tests.support.scripted_http import Answer, Request
from tests.support.waiting import until
from worker.agent.settings import CAPS, AgentSettings

SAY = ("message", {"text": "hi"})
WRITE = ("file_write", {"path": "a.txt", "content": "one"})
CUT = events(frames("I will do what was")[:5], done=False)


@pytest.mark.parametrize("ending", ["clean", "reset", "close", "silence"])
async def test_a_stream_that_ends_in_the_middle_is_no_reply(site: AgentSite, ending: Ending) -> None:
    """Two tries of the first model, then the second one; then no model is left."""
    site.server.then(*[stream(CUT, ending=ending)] * 2)
    script = site.script(plan("Say"), finish())
    site.worker(strategy=site.agent(idle_s=2.0, first_token_s=60.0))
    run_id = await site.submit()
    assert (await site.ended(run_id)).error is None
    assert script.asked == {0: 1, 1: 1}
    log = await site.log(run_id)
    assert [event.data["model"] for event in log if event.type == "model.message"] == ["large", "small"]
    retries = [(event.data["model"], event.data["next_model"]) for event in log if event.type == "model.retry"]
    assert retries == [("small", "small"), ("small", "large")]
    assert not any("I will" in message["content"] for message in script.seen[-1].messages if message["content"])


async def test_if_all_streams_are_cut_the_run_fails_and_a_retry_goes_on(site: AgentSite) -> None:
    script = site.script(plan("Say"), stream(CUT, ending="reset"))
    site.worker()
    run_id = await site.submit(max_attempts=1)
    run = await site.ended(run_id)
    assert run.error is not None
    assert run.error.code == "model_unavailable"
    assert "model:1" not in await site.store.journal(run_id)
    assert run.usage is not None
    assert run.usage.exchanges == 1
    script.steps = [*script.steps[:1], finish()]
    await site.store.retry(run_id, token="again")
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    assert script.asked[0] == 1


async def test_deltas_of_a_lost_worker_are_void_after_the_run_is_resumed(site: AgentSite) -> None:
    whole = frames("One two three. ", calls=[_call("plan", plan("Say")[1])])
    begun = stream(events(whole[:4], done=False), ending="silence")
    site.server.then(begun)
    site.script(plan("Say"), finish())
    worker = Mortal(site)
    run_id = await site.submit()

    async def has_deltas() -> bool:
        return any(event.type == "model.delta" for event in await site.log(run_id))

    await until(has_deltas, "the first words are logged")
    await worker.dies_now()
    site.server.then(stream(events(whole)))
    worker.heir()
    assert (await site.ended(run_id)).error is None
    log = await site.log(run_id)
    resumed = next(index for index, event in enumerate(log) if event.type == "run.resumed")
    later = [event.data for event in log[resumed:] if event.data.get("n") == 0]
    deltas = "".join(data["text"] for data in later if "kind" in data and data["kind"] == "text")
    assert "One two three. ".startswith(deltas)
    assert [data["text"] for data in later if "calls" in data] == ["One two three. "]


def _call(name: str, args: dict[str, Any]) -> dict[str, Any]:
    return {"id": "a", "type": "function", "function": {"name": name, "arguments": json.dumps(args)}}


class Talkative:
    """Model that fills its context with notes, and finishes once it has read its own summary."""

    def __init__(self) -> None:
        self.seen: list[Conversation] = []
        self.summaries = 0
        self._notes: Counter[int] = Counter()

    def __call__(self, request: Request) -> Answer:
        chat = Conversation(request.json)
        self.seen.append(chat)
        return answer_of(self._say(chat), chat)

    def _say(self, chat: Conversation) -> Say:
        if chat.tools == ["plan"]:
            return plan("Take notes", "End")
        if not chat.tools:
            self.summaries += 1
            return "SUMMARY: many notes were taken."
        if "SUMMARY: many" in str(chat.messages):
            return finish("Remembered.")
        return "message", {"text": f"note {chat.replies} " + "x" * 1200}


@pytest.mark.parametrize("when", ["", "before", "after"])
async def test_a_full_context_is_replaced_by_a_summary_also_after_a_kill(site: AgentSite, when: str) -> None:
    model = Talkative()
    site.server.respond = model
    settings = AgentSettings(context_tokens=5_000, output_tokens=500)
    key = "model:6"
    worker = Mortal(site, key if when else "", when or "before", strategy=site.agent(settings=settings))  # type: ignore[arg-type]
    run_id = await site.submit("Remember this prompt.", stream=False)
    if when:
        await worker.dies()
        worker.heir()
    run = await site.ended(run_id)
    assert run.error is None, run.error
    assert run.result is not None
    assert run.result["summary"] == "Remembered."
    log = await site.log(run_id)
    messages = [event.data for event in log if event.type == "model.message"]
    (summary,) = [data for data in messages if data["purpose"] == "summary"]
    assert f"model:{summary['n']}" == key
    (compacted,) = [event.data for event in log if event.type == "context.compacted"]
    assert 0 < compacted["before"] <= summary["n"]
    assert model.summaries == 1 + (when == "before")
    last = model.seen[-1]
    assert "Remember this prompt." in last.messages[1]["content"]
    assert "1. Take notes" in str(last.messages)
    assert "note 1 " not in str(last.messages)
    assert max(len(json.dumps(chat.messages)) for chat in model.seen) < 5_000 * 3


async def test_a_model_constrained_to_json_works_through_a_run_and_its_summary(site: AgentSite) -> None:
    bodies: list[dict[str, Any]] = []

    def respond(request: Request) -> Answer:
        body = request.json
        bodies.append(body)
        text = str(body["messages"])
        tools = ("plan", "message", "finish")
        if "response_format" not in body:
            said = "SUMMARY: many notes were taken."
        elif '{"tool": NAME' in text and _offers(body, *tools[:1]):
            said = json.dumps({"tool": "plan", "args": plan("Take notes")[1]})
        elif "SUMMARY: many" in text:
            said = json.dumps({"tool": "finish", "args": finish("Remembered.")[1]})
        else:
            said = json.dumps({"tool": "message", "args": {"text": f"note {len(bodies)} " + "x" * 1200}})
        return answer_of(said, Conversation(body))

    site.server.respond = respond
    settings = AgentSettings(context_tokens=5_000, output_tokens=500)
    site.worker(strategy=site.agent(settings=settings, tool_mode="json_schema"))
    run = await site.ended(await site.submit())
    assert run.error is None, run.error
    assert run.result is not None
    assert run.result["summary"] == "Remembered."
    # Small servers know neither tools nor their results.
    for body in bodies:
        assert "tools" not in body
        assert {message["role"] for message in body["messages"]} <= {"system", "user", "assistant"}
        assert not any("tool_calls" in message for message in body["messages"])


def _offers(body: dict[str, Any], name: str) -> bool:
    schema = body["response_format"]["json_schema"]["schema"]
    return [each["properties"]["tool"]["const"] for each in schema.get("anyOf", [schema])] == [name]


async def test_a_huge_output_adds_little_to_the_context_and_can_be_read_in_parts(site: AgentSite) -> None:
    command = "yes 0123456789abcde | head -c 100000000; echo END"
    script = site.script(
        plan("Print"),
        ("shell", {"command": command}),
        ("file_read", {"path": ".run/call-1-0.stdout", "offset": 8_000_000, "max_bytes": 32}),
        finish(),
    )
    site.worker()
    run = await site.ended(await site.submit(stream=False))
    assert run.error is None
    output = script.seen[2].results[0]
    assert len(output.encode()) <= 16 * 1024 + 200
    assert "file_read (offset, max_bytes)" in output
    assert "83222788 bytes after these were not kept" in output
    assert "0123456789abcde\n0123456789abcde" in script.seen[3].results[0]


async def test_a_drained_worker_ends_its_call_and_leaves_the_next_one(site: AgentSite) -> None:
    lines = [("shell", {"command": f"{wait} echo {name} >> log.txt"}) for wait, name in (("sleep 1;", "a"), ("", "b"))]
    script = site.script(plan("Log"), lines, finish(files=["log.txt"]))
    worker = site.worker()
    run_id = await site.submit(stream=False, max_attempts=1)

    async def runs() -> bool:
        return any(event.type == "tool.started" for event in await site.log(run_id))

    await until(runs, "the first call is under way")
    await worker.drained()
    assert "tool:1:1" not in await site.store.journal(run_id)
    site.worker()
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    assert (await site.files(run_id))["log.txt"] == b"a\nb\n"
    assert script.asked == {0: 1, 1: 1, 2: 1}


async def test_runs_of_one_worker_do_not_meet(site: AgentSite) -> None:
    def prompt(chat: Conversation) -> str:
        return str(chat.messages[1]["content"]).split("\n")[0]

    site.script(
        plan("Write"),
        lambda chat: ("file_write", {"path": "a.txt", "content": prompt(chat)}),
        lambda chat: finish(prompt(chat), files=["a.txt"]),
    )
    site.worker()
    runs = [await site.submit(f"Run {number}", stream=number % 2 == 0) for number in range(4)]
    for number, run_id in enumerate(runs):
        run = await site.ended(run_id)
        assert run.result is not None
        assert run.result["summary"] == f"Run {number}"
        assert await site.files(run_id) == {"a.txt": f"Run {number}".encode()}
    (day,) = (await RunIndex(site.rig.redis, Keys("")).usage("ada", 2)).values()
    assert day
    assert (day.exchanges, day.input, day.output, day.cached, day.costs) == (12, 1200, 240, 480, {"CHF": 12 * 140})


async def test_a_cancel_ends_a_program_and_keeps_the_usage(site: AgentSite) -> None:
    site.script(plan("Sleep"), ("shell", {"command": "touch begun; sleep 100"}), finish())
    site.worker()
    run_id = await site.submit(stream=False)

    async def runs() -> bool:
        return any(event.type == "tool.started" for event in await site.log(run_id))

    await until(runs, "the program is under way")
    assert (await site.store.cancel(run_id))[0] is Outcome.OK
    run = await site.ended(run_id)
    assert run.status is Status.CANCELLED
    assert run.usage is not None
    assert (run.usage.exchanges, run.usage.input) == (2, 200)
    assert await site.files(run_id) == {}


async def test_a_cancel_ends_the_pause_that_an_endpoint_asked_for(site: AgentSite) -> None:
    site.script(plan("Say"), failure(429, retry_after="25"))
    site.worker()
    run_id = await site.submit(stream=False)

    async def pauses() -> bool:
        return any(event.type == "model.retry" for event in await site.log(run_id))

    await until(pauses, "the worker waits")
    (retry,) = [event for event in await site.log(run_id) if event.type == "model.retry"]
    assert 20_000 < retry.data["until_ms"] - retry.ts <= 26_000
    assert (await site.store.cancel(run_id))[0] is Outcome.OK
    run = await asyncio.wait_for(site.ended(run_id), 10)
    assert run.status is Status.CANCELLED


async def test_a_rejected_request_fails_the_run_and_a_retry_goes_on_from_there(site: AgentSite) -> None:
    script = site.script(plan("Write"), WRITE, failure(401, "bad key"))
    site.worker()
    run_id = await site.submit(stream=False)
    run = await site.ended(run_id)
    assert run.error is not None
    assert run.error.code == "model_rejected"
    script.steps = [*script.steps[:2], finish(files=["a.txt"])]
    await site.store.retry(run_id, token="again")
    assert (await site.ended(run_id)).status is Status.SUCCEEDED
    assert script.asked == {0: 1, 1: 1, 2: 2}


async def test_a_partial_result_has_the_reply_whose_calls_reached_the_limit(site: AgentSite) -> None:
    reply = stream(
        events(frames("Now I write.", calls=[_call("step_done", {"outcome": "seen"}), _call(*SAY), _call(*SAY)]))
    )
    site.script(plan("Look", "Write"), reply)
    site.worker()
    run_id = await site.submit(limits=Limits(tool_calls=1))
    run = await site.ended(run_id)
    assert run.error is not None
    assert run.error.code == "limit_tool_calls"
    assert run.result is not None
    assert run.result["text"] == "Now I write."
    assert [step["outcome"] for step in run.result["steps"]] == ["seen", ""]


async def test_a_limit_of_the_configuration_is_not_offered_to_be_raised(site: AgentSite) -> None:
    site.script(plan("Say"), *[SAY] * 9)
    caps = AgentSettings(caps=Limits(turns=2, wall_s=CAPS.wall_s, repeats=5))
    site.worker(strategy=site.agent(settings=caps))
    run = await site.ended(await site.submit(stream=False))
    assert run.error is not None
    assert "AGENT_LIMITS" in run.error.message
    assert "retry" not in run.error.message


async def test_a_run_that_repeated_itself_goes_on_with_a_raised_limit(site: AgentSite) -> None:
    site.script(plan("Say"), *[SAY] * 5, finish())
    site.worker()
    run_id = await site.submit(stream=False)
    run = await site.ended(run_id)
    assert run.error is not None
    assert run.error.code == "limit_repeats"
    await site.store.retry(run_id, token="again", limits=Limits(repeats=10))
    assert (await site.ended(run_id)).status is Status.SUCCEEDED


async def test_with_a_strict_plan_a_step_uses_the_tools_that_it_named(site: AgentSite) -> None:
    script = site.script(
        ("plan", {"steps": [{"goal": "Say", "tools": ["message"]}, {"goal": "Write", "tools": ["file_write"]}]}),
        WRITE,
        [SAY, ("step_done", {"outcome": "said"})],
        WRITE,
        finish(files=["a.txt"]),
    )
    site.worker()
    run_id = await site.submit(stream=False, strict_plan=True)
    run = await site.ended(run_id)
    assert run.error is None
    assert "does not name 'file_write'" in script.seen[2].results[0]
    codes = [event.data.get("code") for event in await site.log(run_id) if event.type == "tool.finished"]
    assert codes == ["not_planned", None, None]
