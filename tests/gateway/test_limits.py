"""Bounds of one request: commands of a batch, bytes of the replies, share of the event loop."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.gateway import commands
from infra.gateway.connect import connect
from infra.gateway.connection import Replies, RepliesTooLarge, ReplyTooDeep, RespConnection
from infra.gateway.encoding import BASE64, TEXT
from infra.gateway.endpoint import _collect
from infra.gateway.errors import BatchTooLong, MalformedRequest
from infra.gateway.pacing import Pacer
from infra.gateway.resp import pack
from infra.gateway.results import batch_pieces, result_pieces
from infra.gateway.settings import parse_target
from infra.gateway.skip import ReplySkipper
from tests.gateway.support import TOKEN, Served, Subscriber, Valkey, serve
from tests.gateway.test_parts import replies as reply_bytes
from tests.support.waiting import wait_until

TOO_LARGE = (
    "ERR max request size exceeded. Limit: 20000 bytes in the replies to one request (GATEWAY_MAX_RESPONSE_BYTES)"
)
LIMIT = 20_000
# The gateway adds 64 KiB for framing to the limit.
BIG = 100_000


def connected() -> Pacer:
    """Return the pacer of a request whose client stays connected."""

    async def receive() -> Any:
        await asyncio.Event().wait()

    return Pacer(receive)


@pytest.fixture(scope="module")
def small(running_valkey: Valkey) -> Iterator[Served]:
    """Gateway with low limits and a single connection, so that all requests share it."""
    options: dict[str, Any] = {"max_response_bytes": LIMIT, "max_batch_commands": 300, "pool_size": 1}
    with serve(running_valkey.url, **options) as served:
        yield served


@pytest.fixture
def limited(small: Served, valkey: Valkey) -> Iterator[httpx.Client]:
    with small.client() as client:
        client.post("/", json=["SETRANGE", "big", BIG - 1, "x"])
        client.post("/", json=["EVAL", "for i = 1, 20000 do redis.call('RPUSH', 'list', i) end", 0])
        client.post("/", json=["SET", "small", "x" * 1000])
        yield client


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
@pytest.mark.parametrize(
    "command", [["INCR", "n"], ["SET"], ["BLPOP", "l", 0], ["SET", "k", "[],[],[],["], ["SET", "k", {}]]
)
def test_a_batch_of_too_many_commands_is_rejected_before_any_has_run(
    limited: httpx.Client, path: str, command: list[object]
) -> None:
    response = limited.post(path, json=[["INCR", "n"]] + [command] * 300)
    assert response.status_code == 400
    text = "ERR max pipeline size exceeded. Limit: 300 commands in one request (GATEWAY_MAX_BATCH_COMMANDS)"
    assert response.json() == {"error": text}
    assert limited.get("/exists/n").json() == {"result": 0}
    assert len(limited.post("/pipeline", json=[["INCR", "n"]] * 300).json()) == 300


@pytest.mark.parametrize(
    "command",
    [["GET", "big"], ["LRANGE", "list", 0, -1], ["MGET", *["small"] * 100], ["ECHO", "x" * BIG],
     ["EVAL", "local t = {} for i = 1, 30000 do t[i] = {} end return t", 0],
     ["EVAL", "return redis.status_reply(string.rep('x', 100000))", 0]],
)  # fmt: skip
def test_a_reply_over_the_limit_is_an_error_of_the_command(limited: httpx.Client, command: list[object]) -> None:
    for headers in ({}, {"Upstash-Encoding": "base64"}, {"Upstash-Response-Format": "resp2"}):
        response = limited.post("/", json=command, headers=headers)
        assert response.status_code == 400
        assert TOO_LARGE in response.text
        assert len(response.content) < 300
    transaction = limited.post("/multi-exec", json=[["INCR", "n"], command])
    assert transaction.status_code == 400
    assert TOO_LARGE in transaction.json()["error"]
    assert limited.get("/ping").json() == {"result": "PONG"}


@pytest.mark.parametrize("resp2", [False, True])
def test_a_pipeline_stops_at_the_limit_and_keeps_the_replies_before_it(limited: httpx.Client, resp2: bool) -> None:
    batch = [["INCR", "n"], *[["GET", "small"]] * 298, ["INCR", "n"]]
    headers = {"Upstash-Response-Format": "resp2"} if resp2 else {}
    response = limited.post("/pipeline", json=batch, headers=headers)
    assert response.status_code == 200
    if resp2:
        assert response.content.startswith(b":1\r\n$1000\r\n")
        assert response.content.endswith(b"; the command was not sent\r\n")
        return
    found = response.json()
    assert len(found) == 300
    assert found[:2] == [{"result": 1}, {"result": "x" * 1000}]
    errors = [reply["error"] for reply in found if "error" in reply]
    assert 200 < len(errors) < 250
    assert errors[0] == f"{TOO_LARGE}; the command may have been executed"
    assert errors[-1] == f"{TOO_LARGE}; the command was not sent"
    assert limited.get("/get/n").json() == {"result": "1"}


def test_a_value_that_a_request_may_store_can_be_read(limited: httpx.Client) -> None:
    for size in (LIMIT, 1):
        assert limited.post("/set/k", content=b"v" * size).status_code == 200
        assert limited.get("/get/k").json() == {"result": "v" * size}


def test_a_script_may_return_lists_of_any_depth_without_harm(limited: httpx.Client) -> None:
    for depth in (10, 900, 5000):
        script = f"local t = {{}} for i = 1, {depth} do t = {{t}} end return t"
        response = limited.post("/", json=["EVAL", script, 0])
        assert response.status_code in (200, 400)
        assert response.status_code == 200 or "nested too deeply" in response.json()["error"]


def test_requests_on_the_same_connection_get_their_replies_in_spite_of_a_reply_that_is_too_large(
    small: Served, limited: httpx.Client
) -> None:
    stop = threading.Event()
    wrong: list[str] = []

    def ask_too_much(command: list[object]) -> None:
        with small.client() as client:
            while not stop.is_set():
                client.post("/", json=command)

    asking: list[list[object]] = [["GET", "big"], ["LRANGE", "list", 0, -1]]
    threads = [threading.Thread(target=ask_too_much, args=(command,)) for command in asking]
    for thread in threads:
        thread.start()
    for number in range(40):
        response = limited.post("/pipeline", json=[["ECHO", f"{number}-{index}"] for index in range(20)])
        if response.json() != [{"result": f"{number}-{index}"} for index in range(20)]:
            wrong.append(response.text)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


SCRIPTS = {
    "string": "return string.rep('x', 3000000)",
    "integers": "local t = {} for i = 1, 200000 do t[i] = i end return t",
    "nested": "local t = {} for i = 1, 50000 do t[i] = {i, {false, 'a'}} end return t",
    "status": "return redis.status_reply(string.rep('x', 3000000))",
    "deep": "local t = {} for i = 1, 5000 do t = {t} end return t",
}


@pytest.fixture
async def connection(valkey: Valkey) -> AsyncIterator[RespConnection]:
    made = await connect(parse_target(valkey.url), 5)
    yield made
    await made.close()


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_a_connection_skips_what_is_too_large_and_closes_after_the_requests_that_it_has(
    connection: RespConnection, script: str
) -> None:
    before = connection.send(pack(["ECHO", "before"]), 1, 1000)
    large = connection.send(pack(["ECHO", "kept"]) + pack(["EVAL", script, "0"]) + pack(["ECHO", "after"]), 3, 50_000)
    behind = [connection.send(pack(["ECHO", str(number)]) * 3, 3, 1000) for number in range(50)]
    assert await before == [b"before"]
    with pytest.raises(RepliesTooLarge) as caught:
        await large
    assert caught.value.replies == [b"kept"]
    assert isinstance(caught.value, ReplyTooDeep) == (script == SCRIPTS["deep"])
    assert not connection.usable
    for number, future in enumerate(behind):
        assert await future == [str(number).encode()] * 3
    await asyncio.wait_for(connection.lost, 5)


async def test_a_connection_without_other_requests_breaks_at_once(connection: RespConnection) -> None:
    with pytest.raises(RepliesTooLarge):
        await connection.send(pack(["EVAL", SCRIPTS["string"], "0"]), 1, 1000)
    await asyncio.wait_for(connection.lost, 5)


@given(st.lists(reply_bytes, min_size=1, max_size=5), st.integers(0, 4), st.integers(1, 9))
def test_a_skipper_ends_exactly_after_the_replies(stream: list[bytes], skipped: int, step: int) -> None:
    skipped = min(skipped + 1, len(stream))
    text = b"".join(stream)
    skipper = ReplySkipper(skipped)
    for start in range(0, len(text), step):
        rest = skipper.feed(text[start : start + step])
        if rest is not None:
            assert rest + text[start + step :] == b"".join(stream[skipped:])
            return
    raise AssertionError("the replies were not skipped")


def test_a_message_over_the_limit_ends_the_event_streams(small: Served, limited: httpx.Client) -> None:
    with Subscriber(small, "/subscribe/c") as subscriber:
        subscriber.expect(["subscribe,c,1"])
        limited.post("/", json=["EVAL", "return redis.call('PUBLISH', 'c', string.rep('x', 1000000))", 0])
        wait_until(lambda: subscriber.ended, "the stream ends")
        assert subscriber.clean_end
        assert subscriber.events == ["subscribe,c,1"]


async def longest_turn(work: Callable[[Pacer], Awaitable[object]]) -> float:
    """Return the longest time that the event loop was busy with `work`, in seconds of the process.

    Without garbage collection, which depends on the objects of other tests.
    """
    pacer, longest, done = connected(), 0.0, False

    async def tick() -> None:
        nonlocal longest
        before = time.process_time()
        while not done:
            await asyncio.sleep(0)
            now = time.process_time()
            before, longest = now, max(longest, now - before)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    gc.disable()
    try:
        await work(pacer)
    finally:
        gc.enable()
        done = True
        await ticker
    pacer.close()
    return longest


BODIES = {
    "millions of commands": b"[" + b",".join([b'["PING"]'] * 1_100_000) + b"]",
    "millions of empty commands": b"[" + b" , ".join([b"[ ]"] * 1_500_000) + b"]",
    "long batch": b"[" + b",".join([b'["SET","key","' + b"x" * 900 + b'"]'] * 10_000) + b"]",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_large_batch_is_parsed_in_slices(body: bytes) -> None:
    async def parse(pacer: Pacer) -> None:
        if body == BODIES["long batch"]:
            assert len(await commands.batch_from_json(body, 10_000, pacer)) == 10_000
        else:
            with pytest.raises(BatchTooLong):
                await commands.batch_from_json(body, 10_000, pacer)

    started = time.process_time()
    assert await longest_turn(parse) < 0.15
    assert time.process_time() - started < 1


async def test_a_command_of_millions_of_arguments_is_parsed_in_slices() -> None:
    body = b'["DEL",' + b",".join([b'"a" '] * 1_500_000) + b"]"

    async def parse(pacer: Pacer) -> None:
        command = await commands.from_json(body, pacer)
        assert len(command) == 1_500_001
        assert command[-1] == b"a"

    assert await longest_turn(parse) < 0.2


@pytest.mark.parametrize("encoding", [TEXT, BASE64], ids=["text", "base64"])
async def test_large_results_are_encoded_in_slices(encoding: Any) -> None:
    flat: list[Any] = [b"%d" % number for number in range(200_000)]
    nested: list[Any] = [[number, [b"a", None]] for number in range(60_000)]
    for reply in (b"\0" * 9_000_000, flat, nested, [[flat.copy()]], [nested.copy(), b"x" * 5_000_000]):

        async def encode(pacer: Pacer, reply: Any = reply) -> None:
            await _collect(result_pieces(sized([reply], 1 << 20), encoding), pacer)

        assert await longest_turn(encode) < 0.2


scalars = st.one_of(st.integers(0, 9), st.none(), st.binary(max_size=8), st.just(b"OK"))
values = st.recursive(
    st.one_of(scalars, st.just("é😀".encode() * 40_000), st.lists(scalars, max_size=3).map(lambda some: some * 700)),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=6,
)


@given(st.lists(values, max_size=4))
def test_pieces_of_a_result_are_the_json_of_the_whole(found: list[Any]) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return [plain(each) for each in value] if isinstance(value, list) else value

    expected = [{"result": plain(value)} for value in found]
    for size in (0, 1 << 20):
        for value, result in zip(found, expected, strict=True):
            assert json.loads(b"".join(result_pieces(sized([copied(value)], size), TEXT))) == result
        assert json.loads(b"".join(batch_pieces(sized(copied(found), size), TEXT))) == expected


def sized(found: list[Any], size: int) -> Replies:
    """Return replies that were received in `size` bytes."""
    sized_replies = Replies(found)
    sized_replies.size = size
    return sized_replies


def copied(value: Any) -> Any:
    return [copied(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "text", ['["DEL",%s,]', '["DEL",%s', '["DEL",%s]]', '["DEL",%s x]', '["DEL",%s,nul]', '[,"DEL",%s]']
)
async def test_a_large_malformed_command_is_rejected(text: str) -> None:
    body = (text % ",".join(['"argument"'] * 20_000)).encode()
    with pytest.raises(MalformedRequest, match="not valid JSON"):
        await commands.from_json(body, connected())


async def test_a_large_command_is_parsed_like_a_small_one() -> None:
    tail = '"a\\"],[b", 1.10 ,-5,true,null,{"a": [1]}, [2] ,"\\ud83d","é", "' + "y" * 10_000 + '"'
    arguments = ",".join([tail] * 20)
    expected = (await commands.from_json(f'["X",{arguments}]'.encode(), connected()))[1:]
    many = ",".join(['"x"'] * 50_000)
    found = await commands.from_json(f'[ "X" , {many}, {arguments}]'.encode(), connected())
    assert found == [b"X", *[b"x"] * 50_000, *expected]
    rows = await commands.batch_from_json(f'[["X",{arguments}],["X",{many}]]'.encode(), 2, connected())
    assert rows == [[b"X", *expected], [b"X", *[b"x"] * 50_000]]


def test_a_pipeline_ends_when_its_client_has_left(served: Served, http: httpx.Client) -> None:
    slow = ["EVAL", "for i = 1, 100000 do end return redis.call('INCR', KEYS[1])", 1, "n"]
    body = json.dumps([slow] * 9000).encode()
    head = f"POST /pipeline HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as sock:
        sock.sendall(head.encode() + body)
        wait_until(lambda: http.get("/exists/n").json() == {"result": 1}, "the pipeline runs")
    executed: list[int] = []

    def stands_still() -> bool:
        executed.append(int(http.get("/get/n").json()["result"]))
        return executed[-2:-1] == executed[-1:]

    wait_until(stands_still, "the pipeline has ended")
    assert executed[-1] < 9000


def test_other_requests_do_not_wait_for_a_large_one(served: Served, http: httpx.Client) -> None:
    """Bounds the longest wait generously: before there were slices, these requests took seconds."""
    http.post("/", json=["EVAL", "for i = 1, 500000 do redis.call('RPUSH', 'l', i) end", 0])
    large = [
        ("/pipeline", [["PING"]] * 1_000_000),
        ("/pipeline", [["INCR", "n"]] * 10_000),
        ("/", ["LRANGE", "l", 0, -1]),
    ]
    for path, batch in large:
        body = json.dumps(batch, separators=(",", ":")).encode()
        waits = []

        def send(path: str = path, body: bytes = body) -> None:
            with served.client() as client:
                client.post(path, content=body)

        thread = threading.Thread(target=send)
        thread.start()
        while thread.is_alive():
            started = time.perf_counter()
            assert http.get("/ping").status_code == 200
            waits.append(time.perf_counter() - started)
        assert max(waits) < 1
