"""The command as a process: pipes, signals, encodings, no traceback."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from swissbrain.access import TOKEN as TOKEN_VARIABLE
from swissbrain.access import URL
from swissbrain.cli.screen import console
from swissbrain.cli.stop_signals import stop_signals
from tests.client.scripted_server import (
    TOKEN,
    ScriptedServer,
    event,
    ok,
    problem,
    reply,
    run,
    scripted_server,
    silent,
    sse,
    summary,
)
from tests.support.waiting import wait_until

COMMAND = [sys.executable, "-m", "swissbrain"]


def environment(api: ScriptedServer, **more: str) -> dict[str, str]:
    # PYTHONUNBUFFERED, which many test environments set, would hide faults of buffered output.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**inherited, URL: api.url, TOKEN_VARIABLE: TOKEN, **more}


def swissbrain(api: ScriptedServer, *words: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *words], env=environment(api, **more), capture_output=True, timeout=60, check=False
    )


def into(api: ScriptedServer, shell: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command with a redirection of the shell; return its own exit code."""
    line = ["bash", "-c", f'"$@" {shell}', "bash", *COMMAND, *words]
    return subprocess.run(line, env=environment(api), capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "words", [("runs", "--limit", "1000"), ("runs", "--json", "--limit", "1000"), ("files", "r", "f")]
)
def test_a_closed_pipe_ends_the_command_silently(api: ScriptedServer, words: tuple[str, ...]) -> None:
    with scripted_server() as store:
        store.always = reply(200, b"run_0\n" * 1_000_000)
        runs: dict[str, Any] = {"runs": [summary("run_0", title="t" * 100)] * 1000, "next_cursor": None}
        api.always = reply(307, location=store.url) if words[0] == "files" else ok(runs)
        result = into(api, "| head -2 | tail -1; exit ${PIPESTATUS[0]}", *words)
    assert b"run_0" in result.stdout
    assert result.stdout.count(b"\n") == 1
    assert result.stderr == b""
    assert result.returncode in {0, 1}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
@pytest.mark.parametrize("words", [("show", "a"), ("files", "a", "b"), ("--version",), ("--help",)])
def test_a_full_disk_is_one_line(api: ScriptedServer, words: tuple[str, ...]) -> None:
    api.always = ok(run())
    if words[0] == "files":
        api.then(reply(307, location="/store"), reply(200, "x"))
    result = into(api, "> /dev/full", *words)
    assert (result.returncode, result.stderr) == (2, b"swissbrain: cannot go on: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
@pytest.mark.parametrize("words", [("show", "a"), ("show",), ("show", "a", "--nope")])
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(api: ScriptedServer, words: tuple[str, ...]) -> None:
    api.always = problem(404, "there is no run 'a'")
    # 1 means that a run has failed.
    assert into(api, "2> /dev/full", *words).returncode == 2


@pytest.mark.parametrize(("words", "code"), [(("logs", "run_7", "-f"), 130), (("show", "run_7"), 130)])
def test_ctrl_c_exits_with_130_and_a_hint(api: ScriptedServer, words: tuple[str, ...], code: int) -> None:
    follows = words[-1] == "-f"
    api.always = sse(event(1, "message", text="hello"), ends=silent) if follows else silent
    with subprocess.Popen(
        [*COMMAND, *words],
        env=environment(api),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    ) as process:
        assert process.stdout
        if follows:
            assert "hello" in process.stdout.readline()
        wait_until(lambda: api.requests, "the API is asked")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    hint = "swissbrain: the run continues; 'swissbrain logs -f run_7' shows it, 'swissbrain cancel run_7' stops it\n"
    assert err == (hint if follows else "")


@pytest.mark.parametrize("module", ["msgspec", "typer", "httpx", "yaml"])
def test_ctrl_c_while_modules_are_imported_leaves_no_traceback(
    api: ScriptedServer, tmp_path: Path, module: str
) -> None:
    (tmp_path / f"{module}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)"
    )
    done = subprocess.run(
        [*COMMAND, "run", "a task"],
        env=environment(api, PYTHONPATH=str(tmp_path)),
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr, api.requests) == (130, b"", b"", [])


def test_the_command_catches_ctrl_c_before_it_imports_anything() -> None:
    code = "import sys; before = set(sys.modules); import swissbrain.cli; print(*set(sys.modules) - before)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(imported) <= {"__future__", "swissbrain", "swissbrain.cli", "swissbrain.cli.exit_codes"}


def test_output_works_in_any_encoding(api: ScriptedServer) -> None:
    api.always = ok(run(prompt="é│😀"))
    result = swissbrain(api, "show", "a", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"prompt    ???" in result.stdout
    result = swissbrain(api, "show", "a", "--json", PYTHONIOENCODING="ascii")
    assert "é│😀".encode() in result.stdout


def test_followed_lines_are_not_buffered(api: ScriptedServer) -> None:
    seen = threading.Event()
    api.always = sse(event(1), lambda _: (seen.wait(60), None)[1], event(2), ends=silent)
    with subprocess.Popen(
        [*COMMAND, "logs", "a", "-f", "--json"], env=environment(api), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert '"seq":1' in process.stdout.readline()
        seen.set()
        assert '"seq":2' in process.stdout.readline()
        process.kill()


def test_the_command_finds_the_dev_stack_of_the_folder(api: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / ".swissbrain").mkdir()
    (tmp_path / ".swissbrain" / "dev.env").write_text(f"{URL}={api.url}\n{TOKEN_VARIABLE}=t\n")
    api.always = ok(run())
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SWISSBRAIN_")}
    result = subprocess.run(
        [*COMMAND, "show", "a"], cwd=tmp_path, env=bare, capture_output=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert api.requests[0].headers["authorization"] == "Bearer t"


def test_terminal_output_is_coloured_and_free_of_foreign_escapes(api: ScriptedServer) -> None:
    api.always = ok(run(status="failed", prompt="\x1b]0;evil\x07\x1b[5mblink"))
    result = swissbrain(api, "show", "a", FORCE_COLOR="1", TERM="xterm")
    assert b"\x1b[31mfailed" in result.stdout
    assert b"\x1b]" not in result.stdout
    assert b"\x1b[5m" not in result.stdout
    assert b"blink" in result.stdout


def test_colours_in_a_pipe_make_it_no_terminal(api: ScriptedServer) -> None:
    api.always = ok({"runs": [summary("run_1", title="t" * 200, status="failed")], "next_cursor": None})
    head, row = swissbrain(api, "runs", FORCE_COLOR="1", COLUMNS="40").stdout.splitlines()
    assert b"title" in head
    assert row.startswith(b"run_1  \x1b[31mfailed")


@pytest.mark.parametrize("stderr", [True, False])
def test_forced_colours_redraw_nothing_in_a_pipe(monkeypatch: pytest.MonkeyPatch, stderr: bool) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not console(stderr=stderr).is_terminal


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cancel", "-"), "no run to cancel"),
        (("resume", "run_1", "-"), "a reason of the API"),
        (("run", "--plan", "-"), "standard input holds no list of steps"),
    ],
)
def test_a_closed_standard_input_is_empty(api: ScriptedServer, words: tuple[str, ...], message: str) -> None:
    api.always = problem(422, "a reason of the API")
    result = into(api, "<&-", *words)
    assert result.stderr.decode().splitlines() == [f"swissbrain: {message}"]


@pytest.mark.parametrize(("closed", "output"), [(">&-", b""), ("2>&-", b"run  "), ("<&- >&- 2>&-", b"")])
def test_the_command_works_with_closed_streams(api: ScriptedServer, closed: str, output: bytes) -> None:
    api.always = ok({"runs": [summary("run_1")], "next_cursor": None})
    result = into(api, closed, "runs")
    assert (result.returncode, result.stdout[:5], result.stderr) == (0, output, b"")


def test_input_that_is_not_utf_8_is_one_line(api: ScriptedServer) -> None:
    api.always = problem(404, "there is no such run")
    line = ["bash", "-c", r"""printf '\xff\n' | "$@" """, "bash", *COMMAND, "cancel", "-"]
    env = environment(api, PYTHONIOENCODING="utf-8:strict")
    result = subprocess.run(line, env=env, capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr.count(b"\n"), b"Traceback" in result.stderr) == (2, 1, False)


STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@contextmanager
def stoppable(api: ScriptedServer, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*COMMAND, *words],
        env=environment(api),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in STOPS],  # as tests may inherit them ignored
    ) as process:
        yield process


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (("exec", "--", "true"), signal.SIGINT),
        (("exec", "--", "true"), signal.SIGTERM),
        (("run", "--shell", "true"), signal.SIGHUP),
    ],
)
def test_a_command_that_is_stopped_while_it_sends_files_deletes_its_run(
    api: ScriptedServer, tmp_path: Path, number: signal.Signals, words: tuple[str, ...]
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    api.then(ok(run(status="created"), 201), silent)
    api.always = reply(204)
    with stoppable(api, words[0], "--file", str(tmp_path / "a"), *words[1:]) as process:
        wait_until(lambda: len(api.requests) == 2, "the file is announced")
        process.send_signal(number)
        assert process.stderr is not None
        assert (process.wait(60), process.stderr.read()) == (128 + number, b"")
    assert api.requests[-1].method == "DELETE"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_download_that_is_stopped_leaves_no_part(api: ScriptedServer, tmp_path: Path, number: signal.Signals) -> None:
    api.always = silent
    with stoppable(api, "files", "run_1", "a", "-o", str(tmp_path / "a")) as process:
        wait_until(lambda: list(tmp_path.iterdir()), "the file is begun")
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stops_nothing() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by `nohup`
    try:
        with stop_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)
