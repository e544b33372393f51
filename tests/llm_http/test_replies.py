"""Replies as endpoints send them, whole and streamed, and what is sent to ask for them."""

import json
from typing import Any

import pytest

from infra.contract.llm import Call, ChatMessage, Delta, ModelChoice, Price, RetryNotice, Usage
from infra.llm_http.model import LlmHttp
from tests.llm_http.conftest import KEY, adapter, request
from tests.support.model_server import ModelServer
from tests.support.model_server.answers import (
    USAGE,
    answer,
    call,
    completion,
    events,
    frame,
    frames,
    stream,
    streamed,
    whole,
)

BOTH = pytest.mark.parametrize("is_streamed", [True, False])


@BOTH
async def test_a_text_is_the_same_whole_and_streamed(server: ModelServer, model: LlmHttp, is_streamed: bool) -> None:
    server.then(streamed("Grüezi 👋 \u2028 end") if is_streamed else whole("Grüezi 👋 \u2028 end"))
    reply = await model.ask(request(stream=is_streamed, purpose="plan"))
    assert (reply.text, list(reply.calls), reply.finish) == ("Grüezi 👋 \u2028 end", [], "stop")
    assert (reply.purpose, reply.model, reply.served, reply.tries) == ("plan", "m", "served-1", 1)
    assert reply.usage == Usage(input=100, output=20, cached=40, reasoning=5, cost_micros=None)


@BOTH
async def test_calls_are_the_same_whole_and_streamed(server: ModelServer, model: LlmHttp, is_streamed: bool) -> None:
    calls = [call("call_a"), call("call_b", "file_list", "{}")]
    server.then(streamed("I write.", calls) if is_streamed else whole("I write.", calls=calls))
    reply = await model.ask(request(stream=is_streamed))
    assert reply.calls == [
        Call(id="call_a", name="file_write", arguments='{"path": "a.txt"}'),
        Call(id="call_b", name="file_list", arguments="{}"),
    ]
    assert (reply.text, reply.finish) == ("I write.", "calls")


async def test_the_request_has_key_model_tools_and_limit(server: ModelServer, model: LlmHttp) -> None:
    server.then(streamed("x"))
    await model.ask(request(max_output_tokens=77, must_call=True))
    asked = server.requests[0]
    assert asked.target == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    body = asked.json
    assert (body["model"], body["max_tokens"], body["tool_choice"]) == ("m", 77, "required")
    assert body["stream_options"] == {"include_usage": True}
    assert body["tools"][0]["function"]["name"] == "file_write"


async def test_deltas_come_while_the_reply_is_generated(server: ModelServer, model: LlmHttp) -> None:
    deltas: list[Any] = []

    async def note(progress: Delta | RetryNotice) -> None:
        deltas.append(progress)

    made = [frame({"reasoning_content": "hm"}), *frames("abcdef")]
    server.then(stream(events(made)))
    await model.ask(request(), note)
    assert deltas == [Delta("reasoning", "hm"), Delta("text", "abc"), Delta("text", "def")]


async def test_an_endpoint_that_ignores_the_wish_for_a_stream_is_understood(
    server: ModelServer, model: LlmHttp
) -> None:
    server.then(whole("all"))
    assert (await model.ask(request())).text == "all"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        # Every call numbered 0, each complete, as some gateways do.
        ([{"index": 0, **call("a")}, {"index": 0, **call("b", "list", "{}")}], [("a", "file_write"), ("b", "list")]),
        # Without an index: a new id, or a name after complete arguments, begins a call.
        ([call("a"), call("b", "list", "{}")], [("a", "file_write"), ("b", "list")]),
        ([call(None), call(None, "list", "{}")], [("call_0_0", "file_write"), ("call_1_0", "list")]),
        # Two calls with one id.
        (
            [{"index": 0, **call("a")}, {"index": 1, **call("a", "list", "{}")}],
            [("a", "file_write"), ("call_1_0", "list")],
        ),
        ([call("a"), call("a", "list", "{}")], [("a", "file_write"), ("call_1_0", "list")]),
        # An id that looks like one that would be made up.
        ([call(None), call("call_0_0", "list", "{}")], [("call_0_1", "file_write"), ("call_0_0", "list")]),
    ],
)
@BOTH
async def test_calls_are_told_apart_and_get_unique_ids(
    server: ModelServer, model: LlmHttp, parts: list[Any], expected: list[tuple[str, str]], is_streamed: bool
) -> None:
    if is_streamed:
        server.then(stream(events([*(frame({"tool_calls": [part]}) for part in parts), frame({}, "tool_calls")])))
    else:
        server.then(whole(calls=[{**part, "index": None} for part in parts]))
    reply = await model.ask(request(stream=is_streamed))
    assert [(each.id, each.name) for each in reply.calls] == expected
    assert [json.loads(each.arguments) for each in reply.calls] == [{"path": "a.txt"}, {}]


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("repeated", [True, False])
@pytest.mark.parametrize("size", range(1, 19))
async def test_arguments_in_pieces_are_joined(
    server: ModelServer, model: LlmHttp, with_index: bool, repeated: bool, size: int
) -> None:
    text = '{"path": "ä\\n.txt"}'
    made = []
    for begin in range(0, len(text), size):
        named = {"name": "file_write"} if begin == 0 or repeated else {}
        part: dict[str, Any] = {"function": {"arguments": text[begin : begin + size], **named}}
        part |= {"id": "a"} if begin == 0 or repeated else {}
        part |= {"index": 0} if with_index else {}
        made.append(frame({"tool_calls": [part]}))
    server.then(stream(events([*made, frame({}, "tool_calls")])))
    reply = await model.ask(request())
    assert list(reply.calls) == [Call(id="a", name="file_write", arguments=text)]


async def test_invalid_arguments_are_passed_on_as_the_model_wrote_them(server: ModelServer, model: LlmHttp) -> None:
    server.then(streamed(calls=[call(arguments='{"path": '), call("b", arguments=" ")]), whole("ok"))
    reply = await model.ask(request())
    assert [each.arguments for each in reply.calls] == ['{"path":', "{}"]
    # Sent back they are valid, because servers reject or crash on others.
    await model.ask(request(messages=[ChatMessage(role="assistant", calls=reply.calls)], stream=False))
    sent = server.requests[1].json["messages"][0]["tool_calls"]
    assert [json.loads(each["function"]["arguments"]) for each in sent] == [{"invalid_arguments": '{"path":'}, {}]


async def test_arguments_may_be_an_object_instead_of_its_text(server: ModelServer, model: LlmHttp) -> None:
    server.then(whole(calls=[call(arguments={"path": "b"})]))
    assert json.loads((await model.ask(request(stream=False))).calls[0].arguments) == {"path": "b"}


async def test_the_text_may_come_in_typed_parts(server: ModelServer, model: LlmHttp) -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    server.then(answer(200, completion(text=parts)))  # type: ignore[arg-type]
    assert (await model.ask(request(stream=False))).text == "ab"


@pytest.mark.parametrize("is_last", [True, False])
async def test_usage_counts_wherever_it_comes(server: ModelServer, model: LlmHttp, is_last: bool) -> None:
    made = frames("hello", usage=USAGE if is_last else None)
    server.then(stream(events(made if is_last else [*made[:-1], {**made[-1], "usage": USAGE}])))
    assert (await model.ask(request())).usage.input == 100


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": None}, "x", {"prompt_tokens": -1}, {"prompt_tokens": "9"}]
)
@BOTH
async def test_missing_usage_is_estimated(server: ModelServer, model: LlmHttp, usage: Any, is_streamed: bool) -> None:
    server.then(streamed("x" * 300, usage=usage, pieces=50) if is_streamed else whole("x" * 300, usage=usage))
    reply = await model.ask(request(stream=is_streamed))
    assert reply.usage.estimated
    assert reply.usage.output == 100
    assert 100 <= reply.usage.input <= 400


@pytest.mark.parametrize(
    ("usage", "output", "cached"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}, 2, 4),
        ({"prompt_tokens": 10.0, "completion_tokens": 2e0, "prompt_cache_hit_tokens": 4.0}, 2, 4),
        ({"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 99}}, 2, 10),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "total_tokens": 19,
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            9,
            0,
        ),
    ],
)
async def test_usage_in_the_dialects_of_providers(
    server: ModelServer, model: LlmHttp, usage: Any, output: int, cached: int
) -> None:
    server.then(whole("x", usage=usage))
    reply = await model.ask(request(stream=False))
    assert (reply.usage.output, reply.usage.cached, reply.usage.estimated) == (output, cached, False)


async def test_the_cost_follows_from_the_price(server: ModelServer, model: LlmHttp) -> None:
    server.then(whole("x"))
    price = Price(currency="CHF", input=2.0, output=10.0, cached=0.5)
    reply = await model.ask(request(models=[ModelChoice(name="m", price=price)], stream=False))
    assert reply.usage.cost_micros == 60 * 2 + 40 * 0.5 + 20 * 10


async def test_opaque_fields_return_only_to_the_model_they_came_from(server: ModelServer, model: LlmHttp) -> None:
    signed = {**call(), "extra_content": {"google": {"thought_signature": "s1"}}}
    made = [
        frame({"reasoning_content": "th"}),
        frame({"reasoning_content": "ink"}),
        frame({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "a"}]}),
        frame({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "b", "signature": "s2"}]}),
        frame({"tool_calls": [{"index": 0, **signed}]}),
        frame({}, "tool_calls"),
    ]
    server.then(stream(events(made)), whole("x"), whole("x"))
    reply = await model.ask(request())
    history = [ChatMessage(role="assistant", text=reply.text, calls=reply.calls, opaque=reply.opaque)]
    for name in ("m", "other"):
        await model.ask(request(name, messages=history, stream=False))
    to_the_same, to_another = (asked.json["messages"][0] for asked in server.requests[1:])
    assert to_the_same["reasoning_content"] == "think"
    assert to_the_same["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "ab", "signature": "s2"},
    ]
    assert to_the_same["tool_calls"][0]["extra_content"] == signed["extra_content"]
    assert set(to_another) == {"role", "content", "tool_calls"}
    assert set(to_another["tool_calls"][0]) == {"id", "type", "function"}


async def test_a_connection_is_used_again(server: ModelServer, model: LlmHttp) -> None:
    server.then(*[stream(events(frames("x")), kept=True)] * 3)
    for _ in range(3):
        await model.ask(request())
    assert server.connections == 1


async def test_a_constrained_model_replies_with_one_object(server: ModelServer) -> None:
    async with adapter(server, tool_mode="json_schema") as model:
        server.then(streamed('{"tool": "file_write", "args": {"path": "a"}}'), streamed(' {"answer": "done"}\n'))
        first = await model.ask(request())
        history = [
            *request().messages,
            ChatMessage(role="assistant", calls=first.calls),
            ChatMessage(role="tool", call_id=first.calls[0].id, text="ok"),
        ]
        second = await model.ask(request(messages=history))
    assert [(each.name, json.loads(each.arguments)) for each in first.calls] == [("file_write", {"path": "a"})]
    assert (second.text, second.finish) == ("done", "stop")
    body = server.requests[1].json
    assert "tools" not in body
    assert len(body["response_format"]["json_schema"]["schema"]["anyOf"]) == 2
    system, _, said, result = body["messages"]
    assert "file_write" in system["content"]
    assert json.loads(said["content"]) == {"tool": "file_write", "args": {"path": "a"}}
    assert result == {"role": "user", "content": "Result of file_write:\nok"}


@pytest.mark.parametrize("field", ["stream_options", "max_completion_tokens"])
async def test_a_field_that_the_endpoint_rejects_is_left_out_from_then_on(
    server: ModelServer, model: LlmHttp, field: str
) -> None:
    server.then(answer(400, {"error": {"message": f"see {field}"}}), streamed("a"), streamed("b"))
    assert [(await model.ask(request())).tries for _ in range(2)] == [2, 1]
    names = set(server.requests[2].json)
    assert ("stream_options" in names, "max_tokens" in names) == (
        (False, True) if field == "stream_options" else (True, False)
    )
