"""Use of `swissbrain dev`: start, run, inspect, stop, kill, restart over the same data."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest

from infra.contract.events import EVENTS
from tests.support.processes import children_of, is_alive
from tests.support.redis import free_port
from tests.support.waiting import wait_until
from tests.tour.commands import one_after_another, start, swissbrain

EXAMPLE = Path(__file__).parents[2] / "examples" / "planets" / "plan.json"


@contextmanager
def dev(folder: Path, port: int, variables: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start a dev stack and wait until it reports that it is up."""
    with start(folder, "dev", "--port", str(port), "--workers", "1", variables=variables) as process:
        try:
            assert process.stdout
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("Ctrl-C"):
                    break
            assert f"http://127.0.0.1:{port}" in "".join(lines)
            yield process
        finally:
            process.kill()


def fetch(folder: Path, path: str) -> Any:
    """Return the response of the API of the folder's dev stack."""
    lines = (folder / ".swissbrain" / "dev.env").read_text().splitlines()
    env = {name: value for name, _, value in (line.partition("=") for line in lines)}
    headers = {"Authorization": f"Bearer {env['SWISSBRAIN_TOKEN']}"}
    answer = httpx.get(f"{env['SWISSBRAIN_API_URL']}{path}", headers=headers, timeout=20)
    assert answer.status_code == 200
    return answer.json()


def plan(folder: Path, *steps: dict[str, object]) -> Path:
    path = folder / "plan.json"
    path.write_text(json.dumps(steps))
    return path


def test_runs_logs_and_files_survive_a_kill_of_the_dev_stack(tmp_path: Path) -> None:
    port = free_port()
    with dev(tmp_path, port, {"http_proxy": "http://127.0.0.1:1", "AWS_PROFILE": "missing"}) as process:
        made = swissbrain(tmp_path, "run", "--plan", str(EXAMPLE), "--follow")
        assert made.returncode == 0, made.stderr
        run_id = str(re.findall(r"run_[0-9a-f]{32}", made.stderr)[0])
        assert "statistics.json" in swissbrain(tmp_path, "files", run_id).stdout
        figures = swissbrain(tmp_path, "files", run_id, "planets.csv").stdout
        assert figures == EXAMPLE.with_name("planets.csv").read_text()
        log = swissbrain(tmp_path, "logs", run_id, "--json").stdout
        schema, page = fetch(tmp_path, "/events.schema.json"), fetch(tmp_path, f"/agent/logs/{run_id}?limit=1000")
        validator = jsonschema.Draft202012Validator(schema)
        assert len(page["events"]) == log.count("\n") > 30
        for event in page["events"]:
            validator.validate(event)
            assert event["type"] in EVENTS
        parts = children_of(process.pid)
        assert len(parts) >= 6
        process.kill()
    wait_until(lambda: not any(map(is_alive, parts)), "no part outlives a kill -9 of the command", timeout_s=20)

    with dev(tmp_path, port) as process:
        assert run_id in swissbrain(tmp_path, "runs").stdout
        assert swissbrain(tmp_path, "logs", run_id, "--json").stdout == log
        assert swissbrain(tmp_path, "files", run_id, "planets.csv").stdout == figures
        parts = children_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert not any(map(is_alive, parts))


def test_outcomes_are_exit_codes_and_bad_input_is_one_line(tmp_path: Path) -> None:
    with dev(tmp_path, free_port()) as process:
        failing = plan(tmp_path, {"tool": "shell", "args": {"command": "echo almost >&2; exit 7"}})
        failed = swissbrain(tmp_path, "run", "--plan", str(failing), "-f")
        assert failed.returncode == 1
        assert "exit code 7: almost" in failed.stdout

        sleeping = plan(tmp_path, {"tool": "shell", "args": {"command": "sleep 600"}})
        run_id = swissbrain(tmp_path, "run", "--plan", str(sleeping)).stdout.strip()
        with start(tmp_path, "logs", run_id, "-f") as watching:
            assert swissbrain(tmp_path, "cancel", run_id).returncode == 0
            assert watching.wait(timeout=60) == 3

        refusals = [
            (("run", "--plan", "none.json"), "cannot read none.json"),
            (("run",), "a run needs a 'prompt', a 'plan', or both"),
            (("run", "x", "--priority", "9"), "$.priority"),
            (("show", "run_none"), "there is no run 'run_none'"),
            (("start", run_id), "cannot start a run that is cancelled"),
            (("files", run_id, "../x"), "the path holds the segment '..'"),
            (("logs", "-x"), "No such option: -x"),
            (("dev",), "is in use by another stack"),
            (("dev", "--data", "other", "--port", "0"), "--port"),
            (("dev", "--data", ""), "--data': the path is empty"),
        ]
        ended = one_after_another(tmp_path, [words for words, _ in refusals])
        for (words, message), refused in zip(refusals, ended, strict=True):
            assert (refused.code, refused.out) == (2, ""), words
            assert message in refused.err
            assert refused.err.count("\n") == 1
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])  # inherited by the command
    handler = signal.signal(number, signal.SIG_DFL)  # ignored where tests run in the background, or under nohup
    try:
        starting = start(tmp_path, "dev", "--port", str(free_port()))
    finally:
        signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with starting as process:
        try:
            wait_until(lambda: len(children_of(process.pid)) >= 2, "the first parts have started")
            parts = children_of(process.pid)
            process.send_signal(number)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert not any(map(is_alive, parts))


def test_nohup_keeps_the_stack_alive_without_its_terminal(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        starting = start(tmp_path, "dev", "--port", str(free_port()))
    finally:
        signal.signal(signal.SIGHUP, before)
    with starting as process:
        wait_until(lambda: children_of(process.pid), "the first part has started")
        ignored = re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert ignored
    assert int(ignored[1], 16) & 1


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = swissbrain(tmp_path, "dev", "--port", str(port))
    assert refused.returncode == 2
    assert refused.stderr == f"swissbrain: port {port} is taken; choose another one with --port\n"
