"""Errors name the setting that helps, and never the token."""

import hashlib
import json
from pathlib import Path

import pytest

from swissbrain.access import TOKEN as TOKEN_VARIABLE
from swissbrain.access import URL
from tests.client.conftest import Command
from tests.client.scripted_server import TOKEN, ScriptedServer, page, problem, reply
from tests.support.scripted_http import Answer

FINGERPRINT = hashlib.sha256(TOKEN.encode()).hexdigest()[:12]


def write_env(folder: Path, name: str, url: str, token: str = TOKEN) -> Path:
    path = folder / ".swissbrain" / f"{name}.env"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{URL}={url}\n{TOKEN_VARIABLE}={token}\n")
    return path


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_named_by_its_source_and_digest(
    api: ScriptedServer, swissbrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    api.always = problem(status, "no")
    source = f"{TOKEN_VARIABLE} from the environment, SHA-256 {FINGERPRINT}"
    assert swissbrain("queue").err == f"swissbrain: no (the token is {source})\n"
    monkeypatch.delenv(URL)
    path = write_env(tmp_path, "dev", api.url)
    shown = swissbrain("queue").err
    assert f"from {path}, SHA-256 {FINGERPRINT}" in shown
    assert TOKEN not in shown


@pytest.mark.parametrize(
    "answer",
    [
        page(404),
        reply(404, '{"detail": "Not Found"}'),
        page(200),
        reply(404, '{"type": "about:blank", "detail": "Not Found"}'),
    ],
)
def test_what_is_not_this_api_is_told_as_a_wrong_address(
    api: ScriptedServer, swissbrain: Command, answer: Answer
) -> None:
    api.always = answer
    shown = swissbrain("queue").err
    assert f"is {api.url} the address of the API, without '/agent'? It is {URL} from the environment" in shown
    assert shown.count("\n") == 1


def test_a_limit_that_is_out_of_range_is_named_as_the_option(api: ScriptedServer, swissbrain: Command) -> None:
    api.always = problem(422, "Expected `int` <= 200", field="$.limits.turns")
    for words in (("run", "x"), ("retry", "run_1")):
        shown = swissbrain(*words, "--limit", "turns=99999").err
        assert shown == "swissbrain: Expected `int` <= 200 ($.limits.turns); the limit is given by --limit turns=…\n"


def test_a_missing_run_is_no_wrong_address(api: ScriptedServer, swissbrain: Command) -> None:
    api.always = problem(404, "there is no run 'x'")
    assert swissbrain("show", "x").err == "swissbrain: there is no run 'x'\n"


def test_a_dev_stack_that_does_not_run_is_named(
    swissbrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.delenv(URL)
    path = write_env(tmp_path, "dev", "http://127.0.0.1:1")
    shown = swissbrain("queue").err
    assert shown.endswith(f"is 'swissbrain dev' running? The address is from {path}\n")


def test_a_refused_step_is_counted_from_one(api: ScriptedServer, swissbrain: Command, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps([{"tool": "x"}] * 3))
    api.always = problem(422, "unknown tool 'x'", field="$.plan[2].tool")
    shown = swissbrain("run", "--plan", "plan.json").err
    assert shown.startswith("swissbrain: unknown tool 'x' ($.plan[2].tool): step 3 as this command counts, from 1")
    api.always = problem(422, "`from_step` is too large", field="$.from_step")
    assert "the API counts steps from 0, --from-step from 1" in swissbrain("fork", "a", "--from-step", "9").err


def test_the_dev_stack_is_found_above_the_current_folder(
    api: ScriptedServer, swissbrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.always = problem(418, "here")
    write_env(tmp_path, "dev", api.url)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.delenv(URL)
    monkeypatch.chdir(below)
    assert swissbrain("queue").err == "swissbrain: here\n"


def test_a_profile_takes_precedence_over_the_environment(
    api: ScriptedServer, swissbrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.always = problem(418, "here")
    monkeypatch.setenv(URL, "http://127.0.0.1:1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    write_env(tmp_path, "test", api.url, "of-the-profile")
    assert swissbrain("--profile", "test", "queue").err == "swissbrain: here\n"
    assert api.requests[-1].headers["authorization"] == "Bearer of-the-profile"
    (tmp_path / "config" / "swissbrain").mkdir(parents=True)
    (tmp_path / ".swissbrain" / "test.env").rename(tmp_path / "config" / "swissbrain" / "other.env")
    assert swissbrain("--profile", "other", "queue").err == "swissbrain: here\n"
    for name in ("test", "../test", "", "a/b"):
        result = swissbrain("--profile", name, "queue")
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
