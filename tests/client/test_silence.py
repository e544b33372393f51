"""What a followed run waits for, on a terminal."""

import os
import sys
import time
from pathlib import Path

import msgspec
import pytest

from swissbrain.access import TOKEN as TOKEN_VARIABLE
from swissbrain.access import URL
from swissbrain.cli.queue_place import why_queued
from swissbrain.models import Run
from tests.client import scripted_server
from tests.client.conftest import Command
from tests.client.scripted_server import TOKEN, ScriptedServer, end, event, ok, run, sse
from tests.support.scripted_http import Answer, Wire
from tests.support.terminal import on_terminal


def later(seconds: float) -> Answer:
    def wait(_: Wire) -> None:
        time.sleep(seconds)

    return wait


def queue(**changes: object) -> Run:
    place = {"ahead": 3, "ahead_capped": False, "begins_ms": None, "workers_alive": 1, **changes}
    return msgspec.convert(scripted_server.run(queue=place), Run)


def test_the_reason_says_what_a_queued_run_waits_for() -> None:
    assert why_queued(queue(), 0) == ": 3 runs are before it"
    assert why_queued(queue(ahead=0), 0) == ": it is the next one"
    assert why_queued(queue(ahead=1), 0) == ": one run is before it"
    assert why_queued(queue(ahead=1000, ahead_capped=True), 0) == ": 1000 or more runs are before it"
    assert why_queued(queue(workers_alive=0), 0) == ": no worker is alive"
    assert why_queued(queue(begins_ms=61_000), 0) == ": begins in 1m 1s"
    assert why_queued(queue(begins_ms=61_000), 70_000) == ": 3 runs are before it"
    assert why_queued(msgspec.convert(scripted_server.run(), Run), 0) == ""


def test_the_command_shows_what_a_queued_run_waits_for(api: ScriptedServer, swissbrain: Command) -> None:
    place = {"ahead": 0, "ahead_capped": False, "begins_ms": None, "workers_alive": 0}
    api.always = ok(scripted_server.run(status="queued", queue=place))
    assert "status    queued: no worker is alive" in swissbrain("show", "run_1").out


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ((), "queued for "),
        (
            (event(1, "run.started", worker="w", attempt=1), event(2, "step.started", name="draw")),
            "step (draw) runs for ",
        ),
        (
            (event(1, "run.waiting", question="Which\x1b[31m one?"),),
            "waits for input: Which one?; 'swissbrain resume run_1' answers",
        ),
    ],
)
def test_a_terminal_shows_why_nothing_comes_and_nothing_of_it_remains(
    api: ScriptedServer, tmp_path: Path, events: tuple[bytes, ...], reason: str
) -> None:
    place = {"ahead": 3, "ahead_capped": False, "begins_ms": None, "workers_alive": 1}
    last = len(events) + 1
    api.then(sse(*events, later(5), event(last, "run.finished", status="succeeded"), end(last)))
    api.always = ok(run(status="queued", queue=place))
    env = {**os.environ, URL: api.url, TOKEN_VARIABLE: TOKEN}
    result = on_terminal([sys.executable, "-m", "swissbrain", "logs", "run_1", "-f"], cwd=tmp_path, env=env)
    assert result.code == 0
    assert reason in result.text
    assert reason != "queued for " or ": 3 runs are before it" in result.text
    # Each drawing is erased, the last one before the line of the next event.
    assert result.raw.rindex("\r\x1b[2K") < result.raw.rindex("run ")
    assert all(len(drawn.split("\r\n")[0]) < 80 for drawn in result.raw.split("\r\x1b[2K")[1:])
    assert len(api.requests) <= 3


def test_a_file_gets_no_reasons(api: ScriptedServer, tmp_path: Path) -> None:
    api.then(sse(later(3.5), event(1, "run.finished", status="succeeded"), end(1)))
    env = {**os.environ, URL: api.url, TOKEN_VARIABLE: TOKEN}
    command = f"{sys.executable} -m swissbrain logs run_1 -f > log 2> errors"
    result = on_terminal(["bash", "-c", command], cwd=tmp_path, env=env)
    assert (result.code, result.text, (tmp_path / "errors").read_text()) == (0, "", "")
    assert (tmp_path / "log").read_text().endswith("run succeeded\n")
