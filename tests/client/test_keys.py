"""Commands `key new` and `key list`: entries that the API accepts, and no token where none belongs."""

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from edge_api.settings import SCOPES as SCOPES_OF_THE_API
from edge_api.settings import ApiKey
from swissbrain.access import TOKEN as TOKEN_VARIABLE
from swissbrain.cli.commands.keys import KEYS, SCOPES
from tests.client.conftest import Command


def test_a_new_key_is_one_that_the_api_accepts(swissbrain: Command) -> None:
    result = swissbrain("key", "new", "ada@example.ch", "--json")
    made = json.loads(result.out)
    assert (result.code, result.err) == (0, "")
    (key,) = msgspec.convert([made["entry"]], list[ApiKey])
    assert key.user == "ada@example.ch"
    assert made["entry"]["sha256"] == hashlib.sha256(made["token"].encode()).hexdigest()
    assert set(made["entry"]["scopes"]) == set(SCOPES) == SCOPES_OF_THE_API


def test_scopes_can_be_limited(swissbrain: Command) -> None:
    made = json.loads(swissbrain("key", "new", "ada", "--scope", "runs:read", "--scope", "runs:read", "--json").out)
    assert made["entry"]["scopes"] == ["runs:read"]


@pytest.mark.parametrize("words", [("",), ("-x",), ("a b",), ("_a",), ("a" * 65,), ("ada", "--scope", "admin"), ()])
def test_a_key_that_the_api_would_refuse_is_not_made(swissbrain: Command, words: tuple[str, ...]) -> None:
    result = swissbrain("key", "new", "--", *words) if words[:1] == ("-x",) else swissbrain("key", "new", *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1


def test_keys_are_listed_without_their_whole_digest(
    swissbrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [json.loads(swissbrain("key", "new", user, "--json").out) for user in ("ada", "bob")]
    monkeypatch.setenv(KEYS, json.dumps([each["entry"] for each in made]))
    monkeypatch.setenv(TOKEN_VARIABLE, made[1]["token"])
    lines = swissbrain("key", "list").out.splitlines()
    digests = [each["entry"]["sha256"] for each in made]
    assert [line.split()[:2] for line in lines[1:]] == [[digests[0][:12], "ada"], [digests[1][:12], "bob"]]
    assert ["the token in use" in line for line in lines[1:]] == [False, True]
    assert digests[0] not in "\n".join(lines)
    monkeypatch.delenv(KEYS)
    (tmp_path / "keys.json").write_text(json.dumps([each["entry"] for each in made]))
    monkeypatch.setenv(f"{KEYS}_FILE", "keys.json")
    assert len(swissbrain("key", "list", "--json").out.splitlines()) == 2


@pytest.mark.parametrize(
    "text", ["", "x", "{}", "[1]", '[{"user": "ada"}]', '[{"user": 1, "scopes": [], "sha256": ""}]']
)
def test_a_malformed_list_of_keys_is_one_line(swissbrain: Command, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(KEYS, text)
    result = swissbrain("key", "list")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
