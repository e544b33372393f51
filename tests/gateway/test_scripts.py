"""Scripts written for Upstash: flags of their first line, and the digests by which clients name them."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest

from infra.gateway import scripts
from infra.gateway.scripts import ScriptTranslator, without_upstash_flags
from tests.gateway.support import Served, serve

FLAG = "#!lua flags=allow-key-locking\n"
COUNT = FLAG + "return redis.call('INCRBY', KEYS[1], ARGV[1])"


def sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def run(http: httpx.Client, *command: object) -> Any:
    """Return the result of a command that must succeed."""
    response = http.post("/", json=list(command))
    assert response.status_code == 200, response.text
    return response.json()["result"]


def failure(http: httpx.Client, *command: object) -> str:
    response = http.post("/", json=list(command))
    assert response.status_code == 400
    return str(response.json()["error"])


@pytest.mark.parametrize(
    ("first_line", "expected"),
    [
        ("#!lua flags=allow-key-locking", ""),
        ("#!lua flags=allow-key-locking,no-writes", "#!lua flags=no-writes"),
        ("#!lua flags=no-writes,allow-key-locking,allow-stale", "#!lua flags=no-writes,allow-stale"),
        ("#!lua  flags=allow-key-locking ", ""),
        ("#!lua name=x flags=allow-key-locking", "#!lua name=x"),
    ],
)
def test_flags_of_upstash_are_dropped_and_lines_keep_their_numbers(first_line: str, expected: str) -> None:
    for body in ("", "\nreturn 1", "\r\nreturn 1" if not first_line.endswith(" ") else "\n"):
        found = without_upstash_flags((first_line + body).encode()).decode()
        assert found.rstrip("\r") == (expected + body.removeprefix("\r")).rstrip("\r")


@pytest.mark.parametrize(
    "script",
    ["return 1", "#!lua\nreturn 1", "#!lua flags=no-writes\nreturn 1", "#!lua flags=\nx", "#!lua flags=unknown\nx", "",
     "return '#!lua flags=allow-key-locking'", "--\n#!lua flags=allow-key-locking\n",
     "#!lua flag=allow-key-locking\nx"],
)  # fmt: skip
def test_other_scripts_stay_as_they_are(script: str) -> None:
    text = script.encode()
    assert without_upstash_flags(text) is text


def test_scripts_with_flags_of_upstash_run(http: httpx.Client) -> None:
    assert run(http, "EVAL", COUNT, 1, "n", 2) == 2
    assert run(http, "eval_ro", FLAG + "return redis.call('GET', KEYS[1])", 1, "n") == "2"
    for path in ("/pipeline", "/multi-exec"):
        replies = http.post(path, json=[["EVAL", COUNT, 1, "n", 2], ["GET", "n"]]).json()
        assert [reply["result"] for reply in replies] in ([4, "4"], [6, "6"])
    resp2 = http.post("/", json=["EVAL", COUNT, 1, "n", 1], headers={"Upstash-Response-Format": "resp2"})
    assert resp2.content == b":7\r\n"


def test_flags_of_redis_keep_their_meaning(http: httpx.Client) -> None:
    line = "#!lua flags=no-writes,allow-key-locking\n"
    assert run(http, "EVAL", line + "return 7", 0) == 7
    assert "Write commands are not allowed" in failure(
        http, "EVAL", line + "return redis.call('SET', KEYS[1], 1)", 1, "k"
    )
    assert "Unexpected flag" in failure(http, "EVAL", "#!lua flags=allow-key-locking,unknown\nreturn 1", 0)


@pytest.mark.parametrize(
    ("flags", "kept"),
    [("'allow-key-locking'", []),
     ("'no-writes', 'allow-key-locking'", ["no-writes"]),
     ('"allow-key-locking" ; "no-writes"', ["no-writes"]),
     ("'allow-oom',\n  'allow-key-locking',\n  'no-writes',", ["allow-oom", "no-writes"])],
)  # fmt: skip
def test_functions_with_flags_of_upstash_run(http: httpx.Client, flags: str, kept: list[str]) -> None:
    code = f"""#!lua name=counters
local function get(keys, args) return {{redis.call('GET', keys[1]), 'allow-key-locking'}} end
redis.register_function{{function_name='get', callback=get, flags={{ {flags} }}}}
"""
    assert run(http, "FUNCTION", "LOAD", "REPLACE", code) == "counters"
    http.post("/", json=["SET", "n", 2])
    assert run(http, "FCALL", "get", 1, "n") == ["2", "allow-key-locking"]
    [library] = run(http, "FUNCTION", "LIST")
    assert sorted(library[5][0][5]) == kept
    other = code.replace("flags={", "flags={'unknown', ")
    assert "unknown flag" in failure(http, "FUNCTION", "LOAD", "REPLACE", other)
    assert run(http, "FUNCTION", "DELETE", "counters") == "OK"


def test_a_script_is_known_by_the_digest_of_the_text_that_the_client_sent(http: httpx.Client) -> None:
    script = COUNT + " -- by digest"
    digest = sha1(script)
    assert failure(http, "EVALSHA", digest, 1, "n", 2).startswith("NOSCRIPT ")
    assert run(http, "EVAL", script, 1, "n", 2) == 2
    assert run(http, "EVALSHA", digest, 1, "n", 2) == 4
    assert run(http, "EVALSHA", digest.upper(), 1, "n", 2) == 6
    assert run(http, "SCRIPT", "EXISTS", "0" * 40, digest) == [0, 1]
    assert "flags" not in run(http, "SCRIPT", "SHOW", digest)
    assert run(http, "SCRIPT", "FLUSH") == "OK"
    assert failure(http, "EVALSHA", digest, 1, "n", 2).startswith("NOSCRIPT ")
    assert run(http, "SCRIPT", "EXISTS", digest) == [0]
    assert run(http, "SCRIPT", "LOAD", script) == digest
    assert run(http, "EVALSHA", digest, 1, "n", 2) == 8


def test_script_load_replies_the_digest_of_the_text_that_the_client_sent(http: httpx.Client) -> None:
    plain = "return 'no flags'"
    for script in (COUNT + " -- loaded", plain):
        digest = sha1(script)
        for path in ("/pipeline", "/multi-exec"):
            assert http.post(path, json=[["SCRIPT", "LOAD", script], ["PING"]]).json()[0] == {"result": digest}
        raw = http.post("/", json=["SCRIPT", "LOAD", script], headers={"Upstash-Response-Format": "resp2"})
        assert raw.content == b"$40\r\n" + digest.encode() + b"\r\n"
    assert "user_script:2:" in failure(http, "SCRIPT", "LOAD", FLAG + "return (")


def test_another_process_answers_noscript_until_it_has_seen_the_script(http: httpx.Client, served: Served) -> None:
    script = COUNT + " -- two processes"
    assert run(http, "SCRIPT", "LOAD", script) == sha1(script)
    with serve(f"redis://127.0.0.1:{_port_of(served)}") as second, second.client() as other:
        assert failure(other, "EVALSHA", sha1(script), 1, "n", 1).startswith("NOSCRIPT ")
        assert run(other, "EVAL", script, 1, "n", 1) == 1
        assert run(other, "EVALSHA", sha1(script), 1, "n", 1) == 2


def _port_of(served: Served) -> int:
    return served.gateway.streams.hub._target.port


def test_the_number_of_remembered_digests_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "MAX_DIGESTS", 3)
    translator = ScriptTranslator()
    texts = [f"{FLAG}return {number}" for number in range(5)]
    for text in texts:
        translator.translate([b"EVAL", text.encode(), b"0"])
    changed = [translator.translate([b"EVALSHA", sha1(text).encode()])[1] != sha1(text).encode() for text in texts]
    assert changed == [False, False, True, True, True]
