"""The adapter reads what a real model sends. What the model says does not matter: it is too small to think."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from infra.contract.llm import (
    ChatMessage,
    ContextTooLong,
    Delta,
    ModelCut,
    ModelRejected,
    ModelRequest,
    RetryNotice,
    ToolSpec,
)
from infra.contract.tools import TOOLS
from tests.llm_http.conftest import request
from tests.model.conftest import RealModel
from tests.support.waiting import until
from worker.agent.schemas import tool_specs

FILES: list[ToolSpec] = tool_specs(["file_write", "file_read"], ([], []))
STORY = [ChatMessage(role="user", text="Tell a very long story about a sheep.")]


def _chat(**changes: Any) -> ModelRequest:
    return request("smollm2", **{"messages": STORY, "tools": (), "max_output_tokens": 32, **changes})


async def test_a_streamed_reply_is_the_text_of_its_deltas_with_usage_and_an_end(real: RealModel) -> None:
    deltas = []

    async def note(progress: Delta | RetryNotice) -> None:
        assert isinstance(progress, Delta)
        deltas.append(progress.text)

    async with real.adapter() as model:
        reply = await model.ask(_chat(), note)
    assert len(deltas) > 1
    assert "".join(deltas) == reply.text != ""
    end = real.ends()[-1]
    assert (reply.finish, reply.usage.output) == (end["finish"], end["tokens"])
    assert reply.finish in {"stop", "length"}
    assert reply.usage.input > 0
    assert not reply.usage.estimated
    assert (reply.model, reply.served, reply.tries) == ("smollm2", "smollm2", 1)


async def test_a_reply_in_one_piece_has_the_same_facts_and_tells_what_was_cached(real: RealModel) -> None:
    async with real.adapter() as model:
        await model.ask(_chat(max_output_tokens=1))
        reply = await model.ask(_chat(stream=False))
    end = real.ends()[-1]
    assert (reply.finish, reply.usage.output) == (end["finish"], end["tokens"])
    assert reply.text
    assert 0 < reply.usage.cached < reply.usage.input
    assert not reply.usage.estimated


async def test_a_reply_cut_at_the_limit_is_text_with_this_finish(real: RealModel) -> None:
    async with real.adapter() as model:
        reply = await model.ask(_chat(max_output_tokens=3))
    assert (reply.finish, reply.usage.output) == ("length", 3)
    assert reply.text


@pytest.mark.parametrize("stream", [True, False])
async def test_a_constrained_reply_is_a_valid_call_of_an_offered_tool(real: RealModel, stream: bool) -> None:
    deltas = []

    async def note(progress: Delta | RetryNotice) -> None:
        deltas.append(progress)

    asked = request(
        "smollm2",
        messages=[ChatMessage(role="user", text="Write hello into a.txt")],
        tools=FILES,
        must_call=True,
        stream=stream,
        max_output_tokens=300,
    )
    async with real.adapter() as model:
        reply = await model.ask(asked, note)
    assert reply.finish == "calls"
    assert (reply.text, deltas) == ("", [])  # the JSON of a call is nothing to show
    [call] = reply.calls
    assert call.name in {spec.name for spec in FILES}
    msgspec.convert(json.loads(call.arguments), TOOLS[call.name])
    assert reply.usage.output > 0


async def test_a_constrained_reply_that_is_cut_is_an_error_that_tells_its_usage(real: RealModel) -> None:
    async with real.adapter() as model:
        with pytest.raises(ModelCut) as caught:
            await model.ask(_chat(tools=FILES, must_call=True, max_output_tokens=4))
    assert caught.value.usage.output == 4
    assert caught.value.usage.input > 0


async def test_a_cancel_at_the_first_delta_ends_the_reply_at_the_server_which_then_is_free(real: RealModel) -> None:
    begun = asyncio.Event()

    async def note(_progress: Delta | RetryNotice) -> None:
        begun.set()

    replies = len(real.ends())
    async with real.adapter() as model:
        asking = asyncio.create_task(model.ask(_chat(tools=(), max_output_tokens=6000), note))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

        async def ended() -> bool:
            return len(real.ends()) > replies

        await until(ended, "the server notices the closed connection", timeout_s=120)
        end = real.ends()[-1]
        assert end["finish"] == "cancelled"
        assert end["tokens"] < 6000
        assert (await model.ask(_chat(max_output_tokens=3))).text


async def test_messages_that_do_not_fit_are_a_context_that_is_too_long(real: RealModel) -> None:
    async with real.adapter() as model:
        with pytest.raises(ContextTooLong, match="exceed the context window"):
            await model.ask(_chat(messages=[ChatMessage(role="user", text="sheep " * 9000)]))


async def test_tools_that_the_server_does_not_know_are_a_rejection(real: RealModel) -> None:
    async with real.adapter(tool_mode="native") as model:
        with pytest.raises(ModelRejected, match="no tools of its own"):
            await model.ask(_chat(tools=FILES))
