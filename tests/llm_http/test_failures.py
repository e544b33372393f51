"""Endpoints that fail: what is tried again, which model is asked next, and which error remains."""

import asyncio
import os
import resource
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from infra.contract.errors import HostExhausted
from infra.contract.llm import (
    ContextTooLong,
    Delta,
    ModelBusy,
    ModelCut,
    ModelError,
    ModelRefused,
    ModelRejected,
    ModelUnavailable,
    RetryNotice,
)
from infra.llm_http.failures import retry_after_s
from infra.llm_http.model import LlmHttp
from tests.llm_http.conftest import KEY, adapter, request
from tests.support.model_server import ModelServer, Wire
from tests.support.model_server.answers import (
    Ending,
    answer,
    call,
    close,
    completion,
    events,
    failure,
    frame,
    frames,
    reset,
    stream,
    streamed,
    whole,
)
from tests.support.processes import open_fds

SHORT = [
    {"choices": [{"delta": {"content": "Hé"}}]},
    {"choices": [{"delta": {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ""}}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": '{"path": "a.txt"}'}}]}}]},
    {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
]
WHOLE = events(SHORT)
FINISHED = WHOLE.index(b"\n\n", WHOLE.index(b'"tool_calls"}')) + 2
"""Bytes up to the end of the frame with the reason of the end: from here on nothing can be lost but the usage."""


@pytest.mark.parametrize("ending", ["clean", "close", "reset"])
async def test_a_stream_that_is_cut_at_any_byte_is_never_a_reply(server: ModelServer, ending: Ending) -> None:
    async with adapter(server, max_retries=0) as model:
        for cut in range(len(WHOLE)):
            server.then(stream(WHOLE[:cut], ending=ending))
            if cut < FINISHED:
                with pytest.raises(ModelUnavailable):
                    await model.ask(request())
            else:
                reply = await model.ask(request())
                assert [reply.text, *(each.arguments for each in reply.calls)] == ["Hé", '{"path": "a.txt"}']


@pytest.mark.parametrize("cut", [0, 1, 90, FINISHED // 2, FINISHED - 1])
async def test_a_stream_that_falls_silent_is_never_a_reply(server: ModelServer, cut: int) -> None:
    async with adapter(server, max_retries=10, idle_s=0.3, first_token_s=0.3) as model:
        server.then(stream(WHOLE[:cut], ending="silence"), *[streamed("again")] * 10)
        reply = await model.ask(request())
        assert reply.text == "again"
        assert reply.tries >= 2


async def test_a_reply_counts_although_silence_follows_its_end(server: ModelServer) -> None:
    async with adapter(server, idle_s=1.0) as model:
        server.then(stream(WHOLE[:FINISHED], ending="silence"))
        reply = await model.ask(request())
        assert (reply.text, reply.usage.estimated, reply.tries) == ("Hé", True, 1)


async def test_a_whole_answer_that_is_cut_is_never_a_reply(server: ModelServer) -> None:
    sent: list[bytes] = []
    short = {"choices": [{"message": {"content": "Hé"}, "finish_reason": "stop"}]}
    answer(200, short)(_Recorder(sent))  # type: ignore[arg-type]
    full = sent[0]
    async with adapter(server, max_retries=0) as model:
        for cut in range(len(full)):
            server.then(_bytes(full[:cut]))
            with pytest.raises(ModelUnavailable):
                await model.ask(request(stream=False))
        server.then(_bytes(full))
        assert (await model.ask(request(stream=False))).text == "Hé"


class _Recorder:
    def __init__(self, sent: list[bytes]) -> None:
        self.send = sent.append


def _bytes(data: bytes) -> Any:
    return lambda wire: wire.send(data)


BROKEN: dict[str, Any] = {
    "reset": reset,
    "closed": close,
    "500": failure(500),
    "502 with a page": answer(502, b"<html>nginx</html>", "text/html"),
    "503": failure(503),
    "504": failure(504),
    "200 with a page": answer(200, b"<html>login</html>", "text/html"),
    "no choices": answer(200, completion() | {"choices": []}),
    "choices of nothing": answer(200, completion() | {"choices": [None, 5]}),
    "no object": answer(200, [1]),
    "null": answer(200, None),
    "wrong json": answer(200, b'{"choices": [}'),
    "deep json": answer(200, b"[" * 100_000),
    "an error within 200": answer(200, {"error": {"message": "overloaded", "code": 500}}),
    "a stream without choices": stream(events([frame(), frame()])),
    "only done": stream(events([])),
    "an error within a stream": stream(events([frame({"content": "x"}), {"error": {"message": "boom"}}])),
    "an error as text within a stream": stream(events([frame({"content": "x"}), {"error": "boom"}])),
    "no json within a stream": stream(b"data: {'a': 1}\n\n"),
    "no utf-8 within a stream": stream(b'data: {"a": "\xff"}\n\n'),
    "an unknown end": streamed("x", finish="error"),
    "a call without a name": streamed(calls=[call(name="")]),
    "a compressed answer cut": answer(200, b"\x1f\x8b"),
    "not http": lambda wire: wire.send(b"SSH-2.0-OpenSSH\r\n"),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_answer_is_tried_again_then_the_next_model_then_unavailable(
    server: ModelServer, kind: str
) -> None:
    async with adapter(server, max_retries=1) as model:
        progress: list[RetryNotice] = []

        async def note(each: Delta | RetryNotice) -> None:
            if isinstance(each, RetryNotice):
                progress.append(each)

        server.then(BROKEN[kind], BROKEN[kind], streamed("from b"))
        reply = await model.ask(request("a", "b"), note)
        assert (reply.text, reply.model, reply.tries) == ("from b", "b", 3)
        assert [each.next_model for each in progress] == ["a", "b"]
        assert [asked.json["model"] for asked in server.requests] == ["a", "a", "b"]
        server.then(*[BROKEN[kind]] * 4)
        with pytest.raises(ModelUnavailable) as caught:
            await model.ask(request("a", "b"))
        assert KEY not in str(caught.value)
        assert not server.answers


async def test_tokens_of_failed_tries_are_counted(server: ModelServer, model: LlmHttp) -> None:
    server.then(stream(events(frames("x" * 30)[:-2], done=False)), streamed("ok"))
    reply = await model.ask(request())
    assert (reply.wasted.output, reply.wasted.estimated) == (10, True)
    server.then(streamed("half", finish="length", calls=[call()]))
    with pytest.raises(ModelCut) as caught:
        await model.ask(request())
    assert caught.value.usage.output == 20


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_a_reply_cut_by_its_length_counts_only_with_text_alone(
    server: ModelServer, model: LlmHttp, is_streamed: bool
) -> None:
    made = streamed if is_streamed else whole
    server.then(made("half a", finish="length"))
    reply = await model.ask(request(stream=is_streamed))
    assert (reply.text, reply.finish) == ("half a", "length")
    for cut in (made("half a", calls=[call()], finish="length"), made("", finish="length")):
        server.then(cut)
        with pytest.raises(ModelCut):
            await model.ask(request(stream=is_streamed))
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "refusal",
    [
        whole("", refusal="I will not."),
        stream(events([frame({"refusal": "I will "}), frame({"refusal": "not."}), frame({}, "stop")])),
        streamed("par", finish="content_filter"),
        failure(400, "policy", "content_filter"),
    ],
)
async def test_a_refusal_is_final(server: ModelServer, model: LlmHttp, refusal: Any) -> None:
    server.then(refusal)
    with pytest.raises(ModelRefused):
        await model.ask(request("a", "b"))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("made", "error", "tries"),
    [
        (failure(401, f"Incorrect API key provided: {KEY}"), ModelRejected, 1),
        (failure(403), ModelRejected, 1),
        (failure(429, "You exceeded your current quota", "insufficient_quota"), ModelRejected, 1),
        (failure(400, "bad schema"), ModelRejected, 2),
        (failure(404, "no such model"), ModelRejected, 2),
        (answer(422, {"detail": [{"loc": ["body"]}]}), ModelRejected, 2),
        (failure(400, "This model's maximum context length is 4096 tokens"), ContextTooLong, 1),
        (failure(400, "too long", "context_length_exceeded"), ContextTooLong, 1),
        (failure(413, "prompt is too long"), ContextTooLong, 1),
    ],
)
async def test_a_rejection_is_not_repeated(
    server: ModelServer, model: LlmHttp, made: Any, error: type[ModelError], tries: int
) -> None:
    server.then(*[made] * tries)
    with pytest.raises(error) as caught:
        await model.ask(request("a", "b"))
    assert len(server.requests) == tries
    assert KEY not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_never_gets_the_key(server: ModelServer, model: LlmHttp, status: int) -> None:
    server.then(answer(status, b"", location=f"{server.url}/elsewhere"))
    with pytest.raises(ModelRejected, match="LLM_BASE_URL"):
        await model.ask(request("a", "b"))
    assert [asked.target for asked in server.requests] == ["/v1/chat/completions"]


async def test_a_short_pause_is_kept_and_then_the_model_is_asked_again(server: ModelServer, model: LlmHttp) -> None:
    server.then(failure(429, retry_after="0.3"), streamed("ok"))
    started = time.monotonic()
    assert (await model.ask(request())).tries == 2
    assert time.monotonic() - started >= 0.3


async def test_a_long_pause_gives_the_run_back_at_once(server: ModelServer, model: LlmHttp) -> None:
    server.then(failure(429, retry_after="120"), failure(429, retry_after="90"))
    with pytest.raises(ModelBusy) as caught:
        await model.ask(request("a", "b"))
    assert caught.value.after_s == 90
    assert [asked.json["model"] for asked in server.requests] == ["a", "b"]


async def test_a_busy_model_beside_a_broken_one_is_busy(server: ModelServer, model: LlmHttp) -> None:
    server.then(failure(503, retry_after="60"), failure(500), failure(500))
    with pytest.raises(ModelBusy) as caught:
        await model.ask(request("a", "b"))
    assert caught.value.after_s == 60


async def test_an_endpoint_that_names_no_pause_is_busy_after_all_tries(server: ModelServer, model: LlmHttp) -> None:
    server.then(failure(429), failure(429))
    with pytest.raises(ModelBusy) as caught:
        await model.ask(request())
    assert caught.value.after_s == 30


NOW = datetime(2026, 11, 29, 2, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "99999999"}, 86400),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=42), usegmt=True)}, 42),
        ({"retry-after": format_datetime(NOW - timedelta(days=1), usegmt=True)}, 0),
        ({"retry-after": format_datetime(NOW + timedelta(days=900), usegmt=True)}, 86400),
        ({"retry-after": "Sun, 99 Nov 2026 02:00:00 GMT"}, None),
    ],
)
def test_every_form_of_retry_after_is_read(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s({"date": format_datetime(NOW, usegmt=True), **headers}) == expected


async def test_an_endpoint_that_cannot_be_reached_is_unavailable(server: ModelServer) -> None:
    server.url = "http://127.0.0.1:1/v1"
    async with adapter(server) as model:
        with pytest.raises(ModelUnavailable, match="cannot be reached"):
            await model.ask(request())


async def test_a_host_without_descriptors_is_not_the_fault_of_the_endpoint(server: ModelServer, model: LlmHttp) -> None:
    server.then(streamed("a"), streamed("b"))
    await model.ask(request())
    limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(open_fds()) + 20, limits[1]))
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(HostExhausted):
            await model.ask(request())
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (await model.ask(request())).text == "b"


@pytest.mark.parametrize(
    ("sent", "setting"),
    [
        ([], "LLM_FIRST_TOKEN_S"),
        ([b": processing\n\n"] * 30, "LLM_FIRST_TOKEN_S"),
        ([events(frames("x")[:2], done=False)], "LLM_IDLE_S"),
        ([events([frame({"content": "x"})], done=False)] * 30, "LLM_TIMEOUT_S"),
    ],
)
async def test_each_wait_has_its_deadline(server: ModelServer, sent: list[bytes], setting: str) -> None:
    def drip(wire: Wire) -> None:
        stream(ending="close")(wire)
        for packet in sent:
            wire.send(b"%x\r\n%b\r\n" % (len(packet), packet))
            wire.silence(0.1)
        wire.silence()

    shortened = {setting.removeprefix("LLM_").lower(): 0.6}
    async with adapter(server, max_retries=0, **shortened) as model:
        server.then(drip)
        with pytest.raises(ModelUnavailable, match=setting):
            await model.ask(request())


async def test_comments_keep_a_stream_alive(server: ModelServer) -> None:
    first, rest = events(frames("x")[:1], done=False), events(frames("x")[1:])

    def slow(wire: Wire) -> None:
        stream(ending="close")(wire)
        for packet in (first, *[b": wait\r\n\r\n"] * 8, rest):
            wire.send(b"%x\r\n%b\r\n" % (len(packet), packet))
            wire.silence(0.8)

    async with adapter(server, max_retries=0, idle_s=7.0) as model:
        server.then(slow)
        assert (await model.ask(request())).text == "x"


@pytest.mark.parametrize("is_begun", [True, False])
@pytest.mark.parametrize("is_streamed", [True, False])
async def test_cancelling_closes_the_connection(
    server: ModelServer, model: LlmHttp, is_begun: bool, is_streamed: bool
) -> None:
    def begin(wire: Wire) -> None:
        if is_begun:
            stream(events(frames("x")[:2], done=False), ending="close")(wire)
        server.hang(wire)

    server.then(begin)
    task = asyncio.create_task(model.ask(request(stream=is_streamed)))
    await _until(lambda: len(server.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: server.left == 1)


async def test_cancelling_ends_a_pause(server: ModelServer, model: LlmHttp) -> None:
    server.then(failure(429, retry_after="29"))
    task = asyncio.create_task(model.ask(request()))
    await _until(lambda: len(server.requests) == 1)
    await asyncio.sleep(0.1)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=20)
    assert done
    assert task.cancelled()


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "huge",
    [
        stream(*[events([frame({"content": "x" * 60_000})], done=False)] * 90),
        stream(*[events([frame({"reasoning": "x" * 60_000})], done=False)] * 90),
        stream(*[events([frame({"tool_calls": [{"index": 0, **call(arguments="x" * 60_000)}]})], done=False)] * 90),
        stream(events([frame({"tool_calls": [{"index": n, **call(str(n))} for n in range(200)]})])),
        stream(b"data: ", *[b"x" * 60_000] * 160),
        answer(200, b" " * 17_000_000),
        whole("x" * 5_000_000),
    ],
)
async def test_a_huge_answer_ends_the_exchange(server: ModelServer, model: LlmHttp, huge: Any) -> None:
    server.then(huge)
    with pytest.raises(ModelCut):
        await model.ask(request("a", "b"))
    assert len(server.requests) == 1


async def test_a_compressed_answer_is_rejected_unread(server: ModelServer, model: LlmHttp) -> None:
    server.then(answer(200, b"\x1f\x8b", content_encoding="gzip"))
    with pytest.raises(ModelRejected, match="compresses"):
        await model.ask(request())
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "text", ["hello", '{"tool": "other", "args": {}}', '{"answer": 1}', '{"answer": "a"} {"answer": "b"}', "[]", ""]
)
async def test_a_constrained_reply_of_another_form_is_tried_again(server: ModelServer, text: str) -> None:
    async with adapter(server, tool_mode="json_schema") as model:
        server.then(streamed(text), streamed('{"answer": "ok"}'))
        reply = await model.ask(request())
        assert (reply.text, reply.tries, reply.wasted.output) == ("ok", 2, 20)
