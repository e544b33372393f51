"""/pipeline and /multi-exec."""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.gateway.support import Served, Valkey


def send(http: httpx.Client, path: str, *commands: object, **headers: str) -> Any:
    response = http.post(path, json=list(commands), headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def discarded(http: httpx.Client, *commands: object) -> str:
    response = http.post("/multi-exec", json=list(commands))
    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    return str(response.json()["error"])


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
def test_each_command_has_its_result_or_error(http: httpx.Client, path: str) -> None:
    commands = [["SET", "k", "v"], ["INCR", "k"], ["GET", "k"], ["LRANGE", "none", 0, -1], ["GET", "none"]]
    assert send(http, path, *commands) == [
        {"result": "OK"},
        {"error": "ERR value is not an integer or out of range"},
        {"result": "v"},
        {"result": []},
        {"result": None},
    ]


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
def test_base64_in_batches(http: httpx.Client, path: str) -> None:
    value = base64.b64encode(b"v").decode()
    headers = {"Upstash-Encoding": "base64"}
    assert send(http, path, ["SET", "k", "v"], ["MGET", "k", "k"], ["INCR", "k"], **headers) == [
        {"result": "OK"},
        {"result": [value, value]},
        {"error": "ERR value is not an integer or out of range"},
    ]


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
@pytest.mark.parametrize("body", ["", "[]", "{}", "[[]]", '["GET","k"]', '[["GET","k"],[]]', '[["GET","k"],[1]]', "[["])
def test_what_is_no_batch_is_refused_and_nothing_runs(http: httpx.Client, path: str, body: str) -> None:
    response = http.post(path, content=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith("ERR ")


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
def test_a_batch_needs_a_body(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 405


def test_a_refused_command_fails_alone_in_a_pipeline(http: httpx.Client) -> None:
    first, blocked, multi, last = send(http, "/pipeline", ["SET", "a", 1], ["BLPOP", "l", 0], ["MULTI"], ["GET", "a"])
    assert (first, last) == ({"result": "OK"}, {"result": "1"})
    assert blocked["error"].startswith("ERR Command is not available: 'BLPOP'")
    assert multi["error"].startswith("ERR Command is not available: 'MULTI'")


def test_a_pipeline_of_refused_commands_only(http: httpx.Client) -> None:
    [answer] = send(http, "/pipeline", ["BLPOP", "l", 0])
    assert answer["error"].startswith("ERR ")


def test_resp2_pipelines_keep_every_reply_in_its_place(http: httpx.Client) -> None:
    headers = {"Upstash-Response-Format": "resp2"}
    commands = [["SET", "a", 1], ["SUBSCRIBE", "x"], ["INCR", "a"], ["LPUSH", "a", 1]]
    response = http.post("/pipeline", json=commands, headers=headers)
    assert response.status_code == 200
    ok, refused, number, wrong, rest = response.content.split(b"\r\n")
    assert (ok, number, rest) == (b"+OK", b":2", b"")
    assert refused.startswith(b"-ERR Command is not available: 'SUBSCRIBE'")
    assert wrong.startswith(b"-WRONGTYPE ")


def test_a_transaction_with_a_bad_command_does_nothing(http: httpx.Client) -> None:
    text = discarded(http, ["SET", "a", 1], ["GET"])
    assert text.startswith("EXECABORT Transaction discarded because of previous errors.")
    assert text.endswith("ERR wrong number of arguments for 'get' command")
    assert "NOSUCH" in discarded(http, ["SET", "a", 1], ["NOSUCH"])
    assert http.get("/exists/a").json() == {"result": 0}


@pytest.mark.parametrize(
    "command", [["BLPOP", "l", 0], ["MULTI"], ["EXEC"], ["DISCARD"], ["WATCH", "k"], ["SELECT", 1]]
)
def test_a_transaction_with_a_refused_command_does_nothing(http: httpx.Client, command: list[object]) -> None:
    text = discarded(http, ["SET", "a", 1], command, ["SET", "b", 1])
    assert text.startswith("EXECABORT ")
    assert f"ERR Command is not available: '{command[0]}'" in text
    assert http.get("/exists/a/b").json() == {"result": 0}


def test_a_transaction_ignores_the_resp2_option(http: httpx.Client) -> None:
    assert send(http, "/multi-exec", ["PING"], **{"Upstash-Response-Format": "resp2"}) == [{"result": "PONG"}]


def test_transactions_and_other_commands_do_not_mix(served: Served, valkey: Valkey) -> None:
    """Every transaction moves one unit; a reader that saw half of one would see another sum."""
    with served.client() as http:
        http.get("/mset/from/1000/to/0")
    stop = threading.Event()
    sums = set()

    def move(_: int) -> None:
        with served.client() as client:
            for _ in range(25):
                replies = client.post("/multi-exec", json=[["DECR", "from"], ["INCR", "to"]]).json()
                assert replies[0]["result"] + replies[1]["result"] == 1000
                assert client.get("/echo/mine").json() == {"result": "mine"}

    def read() -> None:
        with served.client() as client:
            while not stop.is_set():
                values = client.get("/mget/from/to").json()["result"]
                sums.add(int(values[0]) + int(values[1]))

    with ThreadPoolExecutor(7) as pool:
        reader = pool.submit(read)
        list(pool.map(move, range(6)))
        stop.set()
        reader.result()
    assert sums == {1000}
    with valkey.client() as client:
        assert client.mget("from", "to") == [b"850", b"150"]


def test_answers_never_reach_another_request(served: Served) -> None:
    def ask(number: int) -> None:
        with served.client() as client:
            for turn in range(20):
                mine = f"{number}-{turn}"
                assert client.get(f"/echo/{mine}").json() == {"result": mine}
                batch = [["ECHO", f"{mine}-{place}"] for place in range(20)]
                assert send(client, "/pipeline", *batch) == [{"result": command[1]} for command in batch]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))


def test_a_long_pipeline(http: httpx.Client) -> None:
    replies = send(http, "/pipeline", *([["INCR", "n"]] * 10_000))
    assert replies == [{"result": number} for number in range(1, 10_001)]
