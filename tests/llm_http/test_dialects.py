"""Endpoints that deviate from the protocol in ways that users of such endpoints have reported."""

import json
from typing import Any

import pytest

from infra.contract.llm import (
    ChatMessage,
    ContextTooLong,
    Delta,
    ModelBusy,
    ModelError,
    ModelRejected,
    ModelUnavailable,
)
from infra.llm_http import call_parts
from infra.llm_http.assembly import Assembly
from infra.llm_http.call_parts import CallList, CallParts
from infra.llm_http.failures import TryFailed
from infra.llm_http.model import LlmHttp
from tests.llm_http.conftest import adapter, request
from tests.support.model_server import ModelServer
from tests.support.model_server.answers import (
    answer,
    call,
    completion,
    events,
    failure,
    frame,
    frames,
    stream,
    streamed,
    whole,
)

A, B = '{"path": "a.txt"}', '{"path": "b.txt"}'


def part(arguments: Any = "", name: str | None = None, index: int | None = 0, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({} if name is None else {"name": name})
    return ({} if index is None else {"index": index}) | {"function": function} | more


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        # Calls without ids that all have the number 0.
        ([part(A, "f"), part(B, "f")], [("f", A), ("f", B)]),
        ([part(A, "f"), part("{}", "g")], [("f", A), ("g", "{}")]),
        ([part('{"path": ', "f"), part('"a.txt"}', "f"), part("", "f"), part(" \n", "f")], [("f", A)]),
        # The whole arguments after their pieces: one call, not two.
        ([part('{"path": ', "f", id="x"), part('"a.txt"}'), part(A)], [("f", A)]),
        ([part(A, "f", id="x"), part('{"path":"a.txt"}', "f", id="x")], [("f", A)]),
        ([part(A, "f"), part({"path": "a.txt"}, "f")], [("f", A)]),
        # Without an index, the same again is a second call.
        ([part(A, "f", index=None), part(A, "f", index=None)], [("f", A), ("f", A)]),
    ],
)
async def test_parts_of_a_stream_become_the_calls_that_were_meant(
    server: ModelServer, model: LlmHttp, parts: list[Any], expected: list[tuple[str, str]]
) -> None:
    for one_frame in (True, False):
        split = [parts] if one_frame else [[each] for each in parts]
        server.then(stream(events([*(frame({"tool_calls": each}) for each in split), frame({}, "tool_calls")])))
        reply = await model.ask(request())
        assert [(each.name, each.arguments.strip()) for each in reply.calls] == expected
        assert len({each.id for each in reply.calls}) == len(expected)


def test_the_arguments_are_not_joined_at_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tens of thousands of pieces, that would keep the event loop from all other runs for seconds."""

    class CountedParts(CallParts):
        joins = 0

        @property
        def text(self) -> str:
            CountedParts.joins += 1
            return super().text

    monkeypatch.setattr(call_parts, "CallParts", CountedParts)
    calls = CallList()
    for piece in ('{"text": "', *["word "] * 100, '"}'):
        calls.add_part(part(piece, "f"))
    assert CountedParts.joins < 10
    assert [each.arguments for each in calls.made()] == ['{"text": "' + "word " * 100 + '"}']


def test_a_reply_that_is_nested_too_deeply_fails_the_try_and_not_the_run() -> None:
    fields: dict[str, Any] = {"reasoning_details": {}}
    for _ in range(600):
        fields = {"reasoning_details": fields}
    frame_data = json.dumps({"choices": [{"delta": fields}]}).encode()
    with pytest.raises(TryFailed, match="reasoning_details of the reply is nested too deeply"):
        Assembly().add_frame(frame_data)


async def test_each_entry_of_a_whole_answer_is_a_call(server: ModelServer, model: LlmHttp) -> None:
    server.then(whole(calls=[part("", "f", 0), part("", "f", 0), part(A, "g", None), call("x", "h"), call("x", "h")]))
    reply = await model.ask(request(stream=False))
    assert [(each.name, each.arguments) for each in reply.calls] == [*[("f", "{}")] * 2, ("g", A), *[("h", A)] * 2]


async def test_halves_of_a_character_in_two_frames_are_joined(server: ModelServer, model: LlmHttp) -> None:
    halves = [r'{"content": "a \ud83d"}', r'{"content": "\ude00 \ud83d"}', r'{"content": "b"}']
    text = "".join(f'data: {{"choices": [{{"delta": {half}, "logprobs": NaN}}]}}\n\n' for half in halves)
    deltas = []

    async def note(progress: Any) -> None:
        deltas.append(progress)

    server.then(stream(text.encode(), events([frame({}, "stop")])))
    assert (await model.ask(request(), note)).text == "a 😀 b"
    assert deltas == [Delta("text", each) for each in ("a ", "😀 ", "b")]


SSE, JSON = events(frames("hello")), json.dumps(completion("hello")).encode()


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (SSE, "application/json"),
        (b"\xef\xbb\xbf\r\n: hi\r\n\r\n" + SSE, "text/plain"),
        (b"\n" * 5 + JSON, "text/plain"),
        (b"\xef\xbb\xbf" + JSON, "text/event-stream"),
    ],
)
async def test_the_content_says_whether_it_is_a_stream(
    server: ModelServer, model: LlmHttp, body: bytes, kind: str, is_streamed: bool
) -> None:
    server.then(answer(200, body, kind))
    assert (await model.ask(request(stream=is_streamed))).text == "hello"


@pytest.mark.parametrize(
    ("finish", "expected"), [("model_length", "length"), ("EOS_TOKEN", "stop"), ("end_turn", "stop")]
)
async def test_the_reason_of_the_end_has_many_names(
    server: ModelServer, model: LlmHttp, finish: str, expected: str
) -> None:
    server.then(stream(events([frame({"content": "a", "refusal": False}, "null"), frame({"content": False}, finish)])))
    reply = await model.ask(request())
    assert (reply.text, reply.finish) == ("a", expected)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"object": "error", "message": "boom", "code": 500}, ModelUnavailable),
        ({"message": "boom"}, ModelUnavailable),
        ({"detail": "boom"}, ModelUnavailable),
        ({"error": {"message": "boom", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}, ModelBusy),
        ({"type": "error", "error": {"message": "boom", "type": "overloaded_error"}}, ModelBusy),
        ({"error": {"message": "boom", "code": "context_length_exceeded"}}, ContextTooLong),
        ({"error": {"message": "boom: prompt is too long: 3 > 2", "type": "invalid_request_error"}}, ContextTooLong),
        ({"error": {"message": "boom", "type": "authentication_error"}}, ModelRejected),
    ],
)
async def test_an_error_within_a_stream_is_told_by_its_name(
    server: ModelServer, model: LlmHttp, error: Any, expected: type[ModelError]
) -> None:
    server.then(*[stream(events([frame({"content": "x"}), error]))] * 2)
    with pytest.raises(expected, match="boom"):
        await model.ask(request())


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "This model's maximum prompt length is 131072 but the request contains 200000 tokens."),
        (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
        (400, "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000"),
        (400, "Input is too long for requested model."),
        (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
        (400, "Invalid request: Your request exceeded model token limit: 262144"),
        (400, "max_tokens must be at least 1, got -500."),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"),
        (500, "litellm.ContextWindowExceededError: too long"),
    ],
)
async def test_a_conversation_that_is_too_long_is_recognised(
    server: ModelServer, model: LlmHttp, status: int, message: str
) -> None:
    server.then(failure(status, message))
    with pytest.raises(ContextTooLong):
        await model.ask(request())


async def test_a_model_that_rejects_a_forced_call_is_not_forced(server: ModelServer, model: LlmHttp) -> None:
    rejection = failure(400, "Thinking mode does not support this tool_choice")
    server.then(rejection, streamed("a"), streamed("b"))
    assert [(await model.ask(request(must_call=True))).tries for _ in range(2)] == [2, 1]
    assert ["tool_choice" in asked.json for asked in server.requests] == [True, False, False]


async def test_a_name_that_no_tool_can_have_is_sent_back_in_a_form_that_endpoints_accept(
    server: ModelServer, model: LlmHttp
) -> None:
    server.then(streamed(calls=[call(name="functions.file write\n" + "x" * 100)]), whole("ok"))
    reply = await model.ask(request())
    assert reply.calls[0].name.startswith("functions.file write\n")
    await model.ask(request(messages=[ChatMessage(role="assistant", calls=reply.calls)], stream=False))
    sent = server.requests[1].json["messages"][0]["tool_calls"][0]["function"]["name"]
    assert sent == "functions_file_write_" + "x" * 43


async def test_fields_that_a_model_does_not_want_back_are_left_out(server: ModelServer, model: LlmHttp) -> None:
    history = [ChatMessage(role="assistant", text="a", opaque={"m": {"message": {"reasoning_content": "hm"}}})]
    detail = [{"type": "extra_forbidden", "loc": ["body", "messages", 1, "reasoning_content"]}]
    missing = failure(400, "The `reasoning_content` in the thinking mode must be passed back to the API.")
    server.then(answer(422, {"detail": detail}), streamed("a"), streamed("b"), missing)
    assert [(await model.ask(request(messages=history))).tries for _ in range(2)] == [2, 1]
    with pytest.raises(ModelRejected):
        await model.ask(request("n", messages=history))
    sent = [asked.json["messages"][0].get("reasoning_content") for asked in server.requests]
    assert sent == ["hm", None, None, None]


@pytest.mark.parametrize(
    "around", ["```json\n%s\n```", "<think>{hm}</think>\n%s", "<think>\n</think>```%s```\n", " %s\n"]
)
async def test_a_constrained_reply_may_be_fenced_or_thought_about(server: ModelServer, around: str) -> None:
    async with adapter(server, tool_mode="json_schema", max_retries=0) as model:
        server.then(streamed(around % '{"answer": "```a```"}'))
        assert (await model.ask(request())).text == "```a```"


async def test_a_page_in_place_of_an_answer_names_the_setting(server: ModelServer, model: LlmHttp) -> None:
    server.then(*[answer(200, b"\n<!doctype html><title>App</title>", "text/html")] * 2)
    with pytest.raises(ModelUnavailable, match="LLM_BASE_URL"):
        await model.ask(request())
