"""Encoding of strings: base64, characters that are incomplete, and bytes that are not UTF-8."""

from __future__ import annotations

import base64

import httpx
import pytest

from tests.gateway.support import Valkey
from tests.gateway.test_protocol import error, result


def test_base64_encodes_every_string_except_a_result_that_is_ok(http: httpx.Client, valkey: Valkey) -> None:
    headers = {"Upstash-Encoding": "base64"}

    def b64(value: bytes) -> str:
        return base64.b64encode(value).decode()

    assert result(http.post("/", json=["SET", "k", "OK"], headers=headers)) == "OK"
    assert result(http.post("/", json=["GET", "k"], headers=headers)) == "OK"
    with valkey.client() as client:
        client.rpush("l", b"\xff\x00", "", "OK")
    assert result(http.get("/lrange/l/0/-1", headers=headers)) == [b64(b"\xff\x00"), "", b64(b"OK")]
    assert result(http.get("/ping", headers=headers)) == b64(b"PONG")
    assert result(http.post("/", json=["EVAL", "return {1,{'a',{'b'}}}", 0], headers=headers)) == [
        1,
        [b64(b"a"), [b64(b"b")]],
    ]
    assert error(http.get("/incr/k", headers=headers)) == "ERR value is not an integer or out of range"
    assert error(http.get("/ping", headers={"Upstash-Encoding": "rot13"})).startswith("ERR Upstash-Encoding")


def test_base64_encodes_ok_wherever_it_is_not_the_whole_result(http: httpx.Client) -> None:
    headers = {"Upstash-Encoding": "base64"}
    ok = base64.b64encode(b"OK").decode()
    result(http.post("/", json=["HSET", "h", "status", "OK"]))
    result(http.post("/", json=["SET", "s", "OK"]))
    nested = ["EVAL", "return {'OK', {redis.status_reply('OK')}}", 0]
    for command, expected in (
        (["HVALS", "h"], [ok]),
        (["MGET", "s", "none"], [ok, None]),
        (nested, [ok, [ok]]),
        (["SET", "s", "OK"], "OK"),
        (["EVAL", "return redis.status_reply('OK')", 0], "OK"),
    ):
        assert result(http.post("/", json=command, headers=headers)) == expected
        for path in ("/pipeline", "/multi-exec"):
            assert http.post(path, json=[command], headers=headers).json() == [{"result": expected}]
    assert result(http.post("/", json=["HVALS", "h"])) == ["OK"]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (rb"hi \ud83d", "hi \ufffd"),
        (rb"\ude00 hi", "\ufffd hi"),
        (rb"\ud83d\ud83d\ude00", "\ufffd😀"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\uD83D\n\uDE00", "\ufffd\n\ufffd"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (rb"\\\ud83d\\", "\\\ufffd\\"),
        (rb"\ud83d" + rb"\n" * 3000 + rb"\ud83d", "\ufffd" + "\n" * 3000 + "\ufffd"),
        (rb"\ud83d\ude00 \ud83d", "😀 \ufffd"),
        ("é \ufffd ".encode() + rb"\ud83d", "é \ufffd \ufffd"),
        (b"cut \xf0\x9f\x98", "cut \ufffd"),
        (b"\xff \xed\xa0\x80", "\ufffd \ufffd\ufffd\ufffd"),
    ],
)
def test_half_a_character_is_replaced(http: httpx.Client, sent: bytes, stored: str) -> None:
    assert result(http.post("/", content=b'["SET", "k", "' + sent + b'"]')) == "OK"
    assert result(http.get("/get/k")) == stored
    body = b'[["SET", "k", "' + sent + b'"], ["GET", "k"], ["ECHO", "a"]]'
    for path in ("/pipeline", "/multi-exec"):
        assert http.post(path, content=body).json() == [{"result": "OK"}, {"result": stored}, {"result": "a"}]


def test_bytes_that_are_not_utf8_are_replaced_without_base64(http: httpx.Client) -> None:
    result(http.post("/set/k", content=b"a\xffb"))
    assert result(http.get("/get/k")) == "a\ufffdb"
