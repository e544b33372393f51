"""One action on many runs: every run is changed once, or named."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from swissbrain.access import TOKEN as TOKEN_VARIABLE
from swissbrain.access import URL
from swissbrain.cli.bulk import BulkOptions, for_each_run
from tests.client.conftest import Command
from tests.client.scripted_server import TOKEN, ScriptedServer, ok, problem, reply, reset, state, summary
from tests.support.scripted_http import Wire
from tests.support.terminal import on_terminal
from tests.support.waiting import wait_until

PAGE = {"runs": [summary("run_a"), summary("run_b")], "next_cursor": None}


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_ids_come_from_standard_input_each_once(
    api: ScriptedServer, swissbrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, f"run_a\n\n  run_b  failed   title\n{json.dumps(summary('run_c'))}\nrun_a\n")
    api.always = ok(state("cancelled"))
    result = swissbrain("cancel", "run_0", "-")
    assert (result.code, result.err) == (0, "")
    assert result.out.split() == [
        "run_0",
        "cancelled",
        "run_a",
        "cancelled",
        "run_b",
        "cancelled",
        "run_c",
        "cancelled",
    ]


@pytest.mark.parametrize("text", ["{}\n", '{"run_id"\n', "[1]\n{\n", '{"a": ' * 50_000 + "\n"])
def test_a_malformed_line_of_standard_input_changes_nothing(
    api: ScriptedServer, swissbrain: Command, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    type_in(monkeypatch, text)
    result = swissbrain("cancel", "-")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert api.requests == []


@pytest.mark.parametrize(
    ("words", "query"),
    [
        (("cancel", "--metadata", "a=b"), "status=created%2Cqueued%2Crunning%2Cwaiting&metadata.a=b"),
        (("retry", "--error", "x"), "status=failed&error=x"),
        (("retry", "--created-after", "2026-11-30T02:00Z"), "status=failed%2Ccancelled&created_after=1796004000000"),
        (("delete", "--created-before", "1970-01-01T00:00Z"), "status=succeeded%2Cfailed%2Ccancelled&created_before=0"),
        (("delete", "--status", "created"), "status=created"),
        (("cancel", "--status", "queued,waiting"), "status=queued%2Cwaiting"),
    ],
)
def test_filters_select_the_runs_that_can_be_changed(
    api: ScriptedServer, swissbrain: Command, words: tuple[str, ...], query: str
) -> None:
    api.then(ok(PAGE))
    api.always = reply(204) if words[0] == "delete" else ok(state())
    result = swissbrain(*words)
    assert (result.code, result.err) == (0, "")
    assert [text.split()[0] for text in result.out.splitlines()] == ["run_a", "run_b"]
    assert api.targets[0] == f"/agent/runs?limit=100&{query}"
    assert len(api.requests) == 3


@pytest.mark.parametrize("command", ["cancel", "retry", "delete"])
def test_an_empty_filter_selects_nothing(api: ScriptedServer, swissbrain: Command, command: str) -> None:
    # As of `--status "$STATUS"`, where that variable is not set.
    result = swissbrain(command, "--status", "", "--yes")
    assert result == (2, "", "swissbrain: a filter is empty; leave it out to select everything\n")
    assert swissbrain("runs", "--status", "").code == 2
    assert api.requests == []


@pytest.mark.parametrize("words", [("a", "b"), ("--error", "x"), ("-",)])
def test_a_dry_run_changes_nothing(
    api: ScriptedServer, swissbrain: Command, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    type_in(monkeypatch, "run_a\nrun_b")
    api.always = ok(PAGE)
    result = swissbrain("delete", *words, "--dry-run")
    assert (result.code, result.err) == (0, "swissbrain: would delete 2 runs\n")
    assert len(result.out.split()) == 2
    assert {request.method for request in api.requests} <= {"GET"}


def test_runs_that_were_not_reached_are_named(api: ScriptedServer, swissbrain: Command, pauses: list[float]) -> None:
    api.then(ok(state("cancelled")), *[reset] * 5)
    result = swissbrain("cancel", "a", "b", "c", "d")
    assert (result.code, result.out) == (2, "a cancelled\n")
    first, *others = result.err.splitlines()
    assert first.startswith("swissbrain: b: cannot reach the API at ")
    assert others == ["swissbrain: c: not done", "swissbrain: d: not done"]


def test_each_of_many_runs_is_changed_once_or_named(api: ScriptedServer, swissbrain: Command) -> None:
    ids = [f"run_{number}" for number in range(300)]

    def answer(wire: Wire) -> None:
        number = len(api.requests)
        (ok(state("cancelled")) if number % 3 else problem(409, "it has ended"))(wire)

    api.always = answer
    result = swissbrain("cancel", *ids)
    done = [text.split()[0] for text in result.out.splitlines()]
    named = [text.split()[1].rstrip(":") for text in result.err.splitlines()]
    assert result.code == 2
    assert sorted([*done, *named]) == sorted(ids)
    assert sorted(target.split("/")[3] for target in api.targets) == sorted(ids)
    assert done == sorted(done, key=ids.index)


def environment(api: ScriptedServer) -> dict[str, str]:
    return {**os.environ, URL: api.url, TOKEN_VARIABLE: TOKEN}


@pytest.mark.parametrize(("typed", "code", "changed"), [("y\n", 0, 2), ("n\n", 2, 0), ("\n", 2, 0)])
def test_a_person_is_asked_before_filters_change_runs(
    api: ScriptedServer, tmp_path: Path, typed: str, code: int, changed: int
) -> None:
    api.then(ok(PAGE))
    api.always = ok(state("cancelled"))
    command = [sys.executable, "-m", "swissbrain", "cancel", "--metadata", "a=b"]
    result = on_terminal(command, cwd=tmp_path, env=environment(api), typed=typed)
    assert result.code == code
    assert "cancel 2 runs? [y/N]" in result.text
    assert sum(request.method == "POST" for request in api.requests) == changed
    assert ("nothing was changed" in result.text) == (code == 2)


@pytest.mark.parametrize("typed", ["\x03", "\x04"])
def test_a_question_without_an_answer_changes_nothing(api: ScriptedServer, tmp_path: Path, typed: str) -> None:
    api.then(ok(PAGE))
    command = [sys.executable, "-m", "swissbrain", "cancel", "--metadata", "a=b"]
    result = on_terminal(command, cwd=tmp_path, env=environment(api), typed=typed, typed_after="[y/N]")
    assert result.code == 130
    assert "Traceback" not in result.text
    assert [request.method for request in api.requests] == ["GET"]


def test_yes_and_given_ids_are_not_asked_about(api: ScriptedServer, tmp_path: Path) -> None:
    for words in (["--metadata", "a=b", "--yes"], ["run_a", "run_b"]):
        api.then(*([ok(PAGE)] if "--yes" in words else []))
        api.always = ok(state("cancelled"))
        result = on_terminal([sys.executable, "-m", "swissbrain", "cancel", *words], cwd=tmp_path, env=environment(api))
        assert (result.code, result.text) == (0, "run_a cancelled\nrun_b cancelled\n")


def test_many_runs_have_a_bar_and_a_count_on_a_terminal(api: ScriptedServer, tmp_path: Path) -> None:
    api.always = ok(state("cancelled"))
    ids = [f"run_{number}" for number in range(40)]
    result = on_terminal([sys.executable, "-m", "swissbrain", "cancel", *ids], cwd=tmp_path, env=environment(api))
    assert result.code == 0
    assert "/40" in result.raw
    assert result.text.endswith("cancel: 40 of 40 runs\n")


def test_ctrl_c_names_the_runs_that_were_not_reached(api: ScriptedServer, tmp_path: Path) -> None:
    ids = [f"run_{number}" for number in range(60)]

    def answer(wire: Wire) -> None:
        time.sleep(0.1)
        ok(state("cancelled"))(wire)

    api.always = answer
    with subprocess.Popen(
        [sys.executable, "-m", "swissbrain", "cancel", *ids],
        cwd=tmp_path,
        env=environment(api),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        wait_until(lambda: len(api.requests) > 10, "some runs are cancelled")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    done = [line.split()[0] for line in out.splitlines()]
    named = [line.split()[1].rstrip(":") for line in err.splitlines()]
    assert process.returncode == 130
    assert sorted([*done, *named]) == sorted(ids)
    assert {target.split("/")[3] for target in api.targets} == set(done)
    assert named


def test_ctrl_c_between_two_answers_loses_no_outcome(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [f"run_{number}" for number in range(30)]
    echo = typer.echo

    def interrupted(line: str) -> None:
        monkeypatch.setattr(typer, "echo", echo)
        signal.raise_signal(signal.SIGINT)
        echo(line)

    monkeypatch.setattr(typer, "echo", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            for_each_run(ids, lambda run_id: f"{run_id} cancelled", BulkOptions("cancel", False, True, False))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    out, err = capsys.readouterr()
    named = [line.split()[1].rstrip(":") for line in err.splitlines()]
    assert sorted([*(line.split()[0] for line in out.splitlines()), *named]) == sorted(ids)
