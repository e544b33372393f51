"""Answers of a scripted model endpoint: whole, streamed, cut, refused."""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Literal, TypeAlias

from tests.support.scripted_http import Answer, Wire

Ending: TypeAlias = Literal["clean", "close", "reset", "silence"]
"""End of a stream that is cut: a regular end of the answer, a closed connection, a reset, or nothing more."""

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


def head(status: int, headers: dict[str, str]) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(status: int, value: Any, kind: str = "application/json", **headers: str) -> Answer:
    """Return an answer with a body, JSON unless it is bytes; `retry_after="1"` becomes the header `retry-after`."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    sized = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"}
    return lambda wire: wire.send(head(status, sized | named) + body)


def failure(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    """Return an error in the format of OpenAI."""
    return answer(status, {"error": {"message": message, "type": "some_error", "code": code}}, **headers)


def call(
    call_id: str | None = "call_a", name: str = "file_write", arguments: Any = '{"path": "a.txt"}'
) -> dict[str, Any]:
    """Return a call of a tool in the format of OpenAI, without an id if it is None."""
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return made if call_id is None else {"id": call_id, **made}


def completion(
    text: str | None = None, calls: Sequence[Any] = (), finish: str | None = None, usage: Any = USAGE, **message: Any
) -> dict[str, Any]:
    """Return a whole completion, as it is sent without a stream."""
    made = {"role": "assistant", "content": text, **({"tool_calls": list(calls)} if calls else {}), **message}
    choice = {"index": 0, "message": made, "finish_reason": finish or ("tool_calls" if calls else "stop")}
    return {"id": "c1", "object": "chat.completion", "model": "served-1", "choices": [choice], "usage": usage}


def whole(text: str | None = None, **more: Any) -> Answer:
    """Return an answer with a whole completion; see `completion`."""
    return answer(200, completion(text, **more))


def frame(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one frame of a stream; without a delta, one that has no choice."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c1", "object": "chat.completion.chunk", "model": "served-1", "choices": choices, **more}


def frames(
    text: str = "", calls: Sequence[dict[str, Any]] = (), finish: str | None = None, usage: Any = USAGE, pieces: int = 3
) -> list[dict[str, Any]]:
    """Return the frames of a reply whose text and arguments come in pieces, as OpenAI sends them."""
    made = [frame({"role": "assistant", "content": ""})]
    made += [frame({"content": piece}) for piece in _pieces(text, pieces)]
    for index, each in enumerate(calls):
        first = {**each, "index": index, "function": {"name": each["function"]["name"], "arguments": ""}}
        made.append(frame({"tool_calls": [first]}))
        for piece in _pieces(each["function"]["arguments"], pieces):
            made.append(frame({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
    made.append(frame({}, finish or ("tool_calls" if calls else "stop")))
    return [*made, frame(usage=usage)] if usage is not None else made


def _pieces(text: str, size: int) -> list[str]:
    return [text[begin : begin + size] for begin in range(0, len(text), size)]


def events(values: Sequence[Any], line_end: str = "\n", *, done: bool = True) -> bytes:
    """Return frames as server-sent events."""
    texts = [json.dumps(value, ensure_ascii=False) for value in values] + (["[DONE]"] if done else [])
    return "".join(f"data: {text}{line_end}{line_end}" for text in texts).encode()


def stream(*packets: bytes, ending: Ending = "clean", kept: bool = False) -> Answer:
    """Return an answer that streams packets as separate chunks and then ends; `kept`: the connection stays open."""

    def send(wire: Wire) -> None:
        connection = {} if kept else {"Connection": "close"}
        wire.send(head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **connection}))
        for packet in packets:
            if packet:
                wire.send(b"%x\r\n%b\r\n" % (len(packet), packet))
        if ending == "clean":
            wire.send(b"0\r\n\r\n")
            wire.kept = kept
        elif ending == "reset":
            wire.reset()
        elif ending == "silence":
            wire.silence()

    return send


def streamed(text: str = "", calls: Sequence[dict[str, Any]] = (), **more: Any) -> Answer:
    """Return an answer that streams a reply; see `frames`."""
    return stream(events(frames(text, calls, **more)))


def reset(wire: Wire) -> None:
    """Reset the connection without an answer."""
    wire.reset()


def close(_: Wire) -> None:
    """Close the connection without an answer."""
