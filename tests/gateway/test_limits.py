"""Bounds of one request: commands of a batch and bytes of the replies."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.gateway.connect import connect
from infra.gateway.connection import RespConnection
from infra.gateway.replies import RepliesTooLarge, ReplyTooDeep
from infra.gateway.resp import pack
from infra.gateway.settings import parse_target
from infra.gateway.skip import ReplySkipper
from tests.gateway.support import Served, Subscriber, Valkey, serve
from tests.gateway.test_parts import replies as reply_bytes
from tests.support.waiting import wait_until

TOO_LARGE = (
    "ERR max request size exceeded. Limit: 20000 bytes in the replies to one request (GATEWAY_MAX_RESPONSE_BYTES)"
)
LIMIT = 20_000
# The gateway adds 64 KiB for framing to the limit.
BIG = 100_000


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
    await asyncio.wait_for(connection.lost, 60)


async def test_a_connection_without_other_requests_breaks_at_once(connection: RespConnection) -> None:
    with pytest.raises(RepliesTooLarge):
        await connection.send(pack(["EVAL", SCRIPTS["string"], "0"]), 1, 1000)
    await asyncio.wait_for(connection.lost, 60)


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


def test_the_limit_of_a_message_is_not_one_of_all_messages_together(small: Served, limited: httpx.Client) -> None:
    """Each message takes several pieces of what is received, and nothing comes after it before the next one."""
    message = "x" * 18_000
    with Subscriber(small, "/subscribe/c") as subscriber:
        subscriber.expect(["subscribe,c,1"])
        for count in range(1, 6):
            assert limited.post("/", json=["PUBLISH", "c", message]).json() == {"result": 1}
            subscriber.expect(["subscribe,c,1", *[f"message,c,{message}"] * count])
