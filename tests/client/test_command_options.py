"""Options of commands: selection of several runs, times, contradictions."""

import time
from collections.abc import Iterator

import pytest

from tests.client.conftest import Command
from tests.client.scripted_server import ScriptedServer, ok, problem, reply, run, state, summary
from tests.support.scripted_http import Answer


def test_fork_counts_steps_from_one(api: ScriptedServer, swissbrain: Command) -> None:
    api.then(ok(run("run_2"), 201))
    assert swissbrain("fork", "run_1", "--from-step", "3") == (0, "run_2\n", "")
    assert api.requests[-1].json == {"from_step": 2, "start": True}
    api.then(ok(run("run_3"), 201))
    assert swissbrain("fork", "run_1", "--from-step", "1", "--prompt", "better").out == "run_3\n"
    assert api.requests[-1].json == {"from_step": 0, "start": True, "prompt": "better"}


@pytest.mark.parametrize(
    ("command", "done", "word"), [("retry", ok(state()), "queued"), ("delete", reply(204), "deleted")]
)
def test_error_option_selects_all_runs_that_failed_with_a_code(
    api: ScriptedServer, swissbrain: Command, command: str, done: Answer, word: str
) -> None:
    api.then(ok({"runs": [summary("run_1"), summary("run_2")], "next_cursor": None}), done, done)
    assert swissbrain(command, "--error", "worker_lost") == (0, f"run_1 {word}\nrun_2 {word}\n", "")
    assert api.targets[0] == "/agent/runs?limit=100&status=failed&error=worker_lost"
    assert [target.split("/")[3] for target in api.targets[1:]] == ["run_1", "run_2"]
    api.then(ok({"runs": [], "next_cursor": None}))
    assert swissbrain(command, "--error", "lost") == (0, "", f"swissbrain: no run to {command}\n")


@pytest.mark.parametrize(
    ("command", "done", "word"), [("retry", ok(state()), "queued"), ("delete", reply(204), "deleted")]
)
def test_runs_that_are_missing_or_in_the_wrong_state_are_skipped(
    api: ScriptedServer, swissbrain: Command, command: str, done: Answer, word: str
) -> None:
    api.then(problem(404, "there is no run 'a'"), problem(409, "it runs"), done)
    skipped = "swissbrain: a: there is no run 'a'\nswissbrain: b: it runs\n"
    assert swissbrain(command, "a", "b", "c") == (2, f"c {word}\n", skipped)
    api.then(problem(403, "not allowed"))
    refused = swissbrain(command, "a", "b")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("swissbrain: a: not allowed (the token is SWISSBRAIN_TOKEN from the environment, SHA")
    assert refused.err.endswith("\nswissbrain: b: not done\n")


@pytest.fixture
def _in_zurich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Zurich")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_in_zurich")
def test_start_at_accepts_iso_8601_times(api: ScriptedServer, swissbrain: Command) -> None:
    api.always = ok(run(start_at_ms=4102444800000), 201)
    for text in ("2100-01-01T00:00Z", "2100-01-01T01:00:00.000", "2100-01-01 02:30+02:30", "20991231T190000-0500"):
        assert swissbrain("run", "x", "--start-at", text).code == 0
        assert api.requests[-1].json == {"prompt": "x", "start": True, "start_at_ms": 4102444800000}
    assert "to start  2100-01-01 01:00:00" in swissbrain("show", "run_1").out


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2020-01-01T00:00Z", "is in the past"),
        ("0001-01-01", "is not a time such as"),
        ("9999-12-31T23:59:59-12:00", "is not a time such as"),
        ("2026-13-01", "is not a time such as"),
        ("tomorrow", "is not a time such as"),
        ("", "is not a time such as"),
    ],
)
def test_start_at_rejects_malformed_and_past_times(
    api: ScriptedServer, swissbrain: Command, text: str, why: str
) -> None:
    result = swissbrain("run", "x", "--start-at", text)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert why in result.err
    assert api.requests == []


@pytest.mark.parametrize(
    "words",
    [
        ("retry", "a", "--error", "x"),
        ("retry", "a", "b", "-f"),
        ("delete",),
        ("delete", "a", "--error", "x"),
        ("run", "x", "--delay", "1", "--start-at", "2100-01-01"),
    ],
)
def test_contradictory_options_are_rejected(api: ScriptedServer, swissbrain: Command, words: tuple[str, ...]) -> None:
    assert swissbrain(*words).code == 2
    assert api.requests == []
