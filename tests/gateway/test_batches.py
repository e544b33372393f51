"""Batches of commands: /pipeline and /multi-exec."""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.gateway.support import Served, Valkey


def send(http: httpx.Client, path: str, *commands: object, **headers: str) -> Any:
    """Send a batch that must succeed; return the decoded response."""
    response = http.post(path, json=list(commands), headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def discarded(http: httpx.Client, *commands: object) -> str:
    """Send a transaction that must be rejected; return the text of the error."""
    response = http.post("/multi-exec", json=list(commands))
    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    return str(response.json()["error"])


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
def test_a_batch_returns_a_result_or_error_for_each_command(http: httpx.Client, path: str) -> None:
    commands = [["SET", "k", "v"], ["INCR", "k"], ["GET", "k"], ["LRANGE", "none", 0, -1], ["GET", "none"]]
    assert send(http, path, *commands) == [
        {"result": "OK"},
        {"error": "ERR value is not an integer or out of range"},
        {"result": "v"},
        {"result": []},
        {"result": None},
    ]


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
def test_a_batch_encodes_results_in_base64(http: httpx.Client, path: str) -> None:
    value = base64.b64encode(b"v").decode()
    headers = {"Upstash-Encoding": "base64"}
    assert send(http, path, ["SET", "k", "v"], ["MGET", "k", "k"], ["INCR", "k"], **headers) == [
        {"result": "OK"},
        {"result": [value, value]},
        {"error": "ERR value is not an integer or out of range"},
    ]


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
@pytest.mark.parametrize("body", ["", "[]", "{}", "[[]]", '["GET","k"]', '[["GET","k"],[]]', '[["GET","k"],[1]]', "[["])
def test_a_malformed_batch_is_rejected(http: httpx.Client, path: str, body: str) -> None:
    response = http.post(path, content=body)
    assert response.status_code == 400
    assert response.json()["error"].startswith("ERR ")


@pytest.mark.parametrize("path", ["/pipeline", "/multi-exec"])
def test_a_batch_sent_with_get_is_not_allowed(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 405


def test_a_rejected_command_in_a_pipeline_does_not_affect_the_others(http: httpx.Client) -> None:
    first, blocked, multi, last = send(http, "/pipeline", ["SET", "a", 1], ["BLPOP", "l", 0], ["MULTI"], ["GET", "a"])
    assert (first, last) == ({"result": "OK"}, {"result": "1"})
    assert blocked["error"].startswith("ERR Command is not available: 'BLPOP'")
    assert multi["error"].startswith("ERR Command is not available: 'MULTI'")


def test_a_pipeline_may_consist_of_rejected_commands(http: httpx.Client) -> None:
    [answer] = send(http, "/pipeline", ["BLPOP", "l", 0])
    assert answer["error"].startswith("ERR ")


def test_a_resp2_pipeline_keeps_the_order_of_replies(http: httpx.Client) -> None:
    headers = {"Upstash-Response-Format": "resp2"}
    commands = [["SET", "a", 1], ["SUBSCRIBE", "x"], ["INCR", "a"], ["LPUSH", "a", 1]]
    response = http.post("/pipeline", json=commands, headers=headers)
    assert response.status_code == 200
    ok, rejected, number, wrong, rest = response.content.split(b"\r\n")
    assert (ok, number, rest) == (b"+OK", b":2", b"")
    assert rejected.startswith(b"-ERR Command is not available: 'SUBSCRIBE'")
    assert wrong.startswith(b"-WRONGTYPE ")


def test_a_transaction_with_an_invalid_command_changes_nothing(http: httpx.Client) -> None:
    text = discarded(http, ["SET", "a", 1], ["GET"])
    assert text.startswith("EXECABORT Transaction discarded because of previous errors.")
    assert text.endswith("ERR wrong number of arguments for 'get' command")
    assert "NOSUCH" in discarded(http, ["SET", "a", 1], ["NOSUCH"])
    assert http.get("/exists/a").json() == {"result": 0}


@pytest.mark.parametrize(
    "command", [["BLPOP", "l", 0], ["MULTI"], ["EXEC"], ["DISCARD"], ["WATCH", "k"], ["SELECT", 1]]
)
def test_a_transaction_with_a_rejected_command_changes_nothing(http: httpx.Client, command: list[object]) -> None:
    text = discarded(http, ["SET", "a", 1], command, ["SET", "b", 1])
    assert text.startswith("EXECABORT ")
    assert f"ERR Command is not available: '{command[0]}'" in text
    assert http.get("/exists/a/b").json() == {"result": 0}


def test_a_transaction_ignores_the_resp2_option(http: httpx.Client) -> None:
    assert send(http, "/multi-exec", ["PING"], **{"Upstash-Response-Format": "resp2"}) == [{"result": "PONG"}]


def test_a_transaction_is_atomic_for_concurrent_clients(served: Served, valkey: Valkey) -> None:
    """Each transaction moves one unit between two keys; a reader in the middle of one would see another sum."""
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


def test_concurrent_requests_get_their_own_replies(served: Served) -> None:
    def send_requests(number: int) -> None:
        with served.client() as client:
            for round_number in range(20):
                mine = f"{number}-{round_number}"
                assert client.get(f"/echo/{mine}").json() == {"result": mine}
                batch = [["ECHO", f"{mine}-{index}"] for index in range(20)]
                assert send(client, "/pipeline", *batch) == [{"result": command[1]} for command in batch]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send_requests, range(8)))


def test_a_pipeline_may_have_ten_thousand_commands(http: httpx.Client) -> None:
    replies = send(http, "/pipeline", *([["INCR", "n"]] * 10_000))
    assert replies == [{"result": number} for number in range(1, 10_001)]
