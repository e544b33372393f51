"""Property: a legal stream, written in any way and cut into any packets, gives the same reply."""

import itertools
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.llm_http.assembly import Assembly
from infra.llm_http.sse import EventDecoder
from tests.llm_http.conftest import adapter, request
from tests.support.model_server import model_server
from tests.support.model_server.answers import USAGE, call, frame, stream

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CALLS = st.lists(st.tuples(TEXTS, st.sampled_from(["file_write", "shell"])), max_size=3)


@st.composite
def _frames(draw: st.DrawFn) -> tuple[list[Any], str, list[tuple[str, str, str]]]:
    """Draw the frames of a reply with its text and its calls, whose parts interleave in any way."""
    text, calls = draw(TEXTS), draw(CALLS)
    parts: list[list[Any]] = [[frame({"content": piece}) for piece in _pieces(draw, text)]]
    expected = []
    for index, (path, name) in enumerate(calls):
        arguments = json.dumps({"path": path}, ensure_ascii=draw(st.booleans()))
        expected.append((f"call_{index}", name, arguments))
        begin = {"index": index, **call(f"call_{index}", name, "")}
        pieces = [{"index": index, "function": {"arguments": piece}} for piece in _pieces(draw, arguments)]
        parts.append([frame({"tool_calls": [part]}) for part in (begin, *pieces)])
    made = [frame({"role": "assistant", "content": None})]
    while left := [part for part in parts if part]:
        made.append(draw(st.sampled_from(left)).pop(0))
    made += [frame({}, "tool_calls" if calls else "stop"), frame(usage=USAGE)]
    return made, text, expected


def _pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=4)) | {0, len(text)})
    return [text[begin:end] for begin, end in itertools.pairwise(cuts)]


@st.composite
def _written(draw: st.DrawFn, values: list[Any]) -> bytes:
    """Draw one of the ways in which the standard allows to write the events of a stream."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    out = draw(st.sampled_from(["", "\ufeff"]))
    for value in [*values, "[DONE]"]:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=draw(st.booleans()))
        # JSON may be broken into lines between its tokens, one field for each line.
        lines = json.dumps(value, indent=1).split("\n") if value != "[DONE]" and draw(st.booleans()) else [text]
        out += draw(st.sampled_from(["", f": ping{end}", f":{end}{end}", f"event: x{end}id: 5{end}retry: 9{end}"]))
        space = draw(st.sampled_from(["", " "]))
        out += "".join(f"data:{space}{line}{end}" for line in lines) + end
    return out.encode()


@st.composite
def _packets(draw: st.DrawFn, data: bytes) -> list[bytes]:
    size = draw(st.sampled_from([1, 2, 3, 7, 50, 100_000]))
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


@given(st.data())
def test_any_writing_and_any_packets_give_the_same_reply(data: st.DataObject) -> None:
    values, text, calls = data.draw(_frames())
    decoder, assembly = EventDecoder(100_000), Assembly()
    found = []
    for packet in data.draw(_packets(data.draw(_written(values)))):
        found += list(decoder.feed(packet))
    found += list(decoder.end())
    assert found[-1] == b"[DONE]"
    for event in found[:-1]:
        assembly.add_frame(event)
    reply = assembly.whole("m")
    assert (reply[0], [(each.id, each.name, each.arguments) for each in reply[1]]) == (text, calls)
    assert assembly.usage == USAGE


@given(st.data())
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
async def test_the_same_holds_over_a_socket(data: st.DataObject) -> None:
    values, text, calls = data.draw(_frames())
    packets = data.draw(_packets(data.draw(_written(values))))
    with model_server() as server:
        async with adapter(server, max_retries=0) as model:
            server.then(stream(*packets))
            reply = await model.ask(request())
    assert (reply.text, [(each.id, each.name, each.arguments) for each in reply.calls]) == (text, calls)
    assert (reply.usage.input, reply.usage.estimated) == (100, False)


@given(st.binary(max_size=300), st.integers(1, 20))
def test_no_bytes_break_the_decoder(garbage: bytes, size: int) -> None:
    at_once, in_packets = EventDecoder(1000), EventDecoder(1000)
    whole = [*at_once.feed(garbage), *at_once.end()]
    parts = [garbage[begin : begin + size] for begin in range(0, len(garbage), size)]
    assert [event for part in parts for event in in_packets.feed(part)] + list(in_packets.end()) == whole
