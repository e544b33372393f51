"""Waiting for runs: long requests, the end of the time or of the patience, and `run` as a whole."""

import math
import time
from pathlib import Path
from typing import Any

import pytest

from swissbrain import Client, RunFailed, Unreachable, WaitTimeout, shell
from tests.client.both_clients import Connect
from tests.client.scripted_server import TOKEN, ScriptedServer, ok, problem, reply, reset, run, state
from tests.support.scripted_http import Answer


def ended(status: str = "succeeded", **changes: Any) -> Answer:
    return ok(run(status=status, **changes))


@pytest.mark.parametrize(
    ("status", "timeout_s"), [("succeeded", None), ("failed", math.inf), ("cancelled", 1e300), ("waiting", None)]
)
def test_wait_returns_when_the_run_has_ended_or_waits(
    api: ScriptedServer, client: Client, pauses: list[float], status: str, timeout_s: float | None
) -> None:
    api.then(ok(run()), ok(run(status="running")), ended(status))
    assert client.wait("run_1", timeout_s=timeout_s).status == status
    assert api.targets == ["/agent/runs/run_1?wait=20"] * 3


def test_an_api_that_holds_nothing_back_is_asked_twice_a_second_at_most(
    api: ScriptedServer, client: Client, pauses: list[float]
) -> None:
    api.then(*[ok(run())] * 5, ended())
    begun = time.monotonic()
    client.wait("run_1")
    asked_s = time.monotonic() - begun
    assert len(pauses) == 5
    assert max(pauses) <= 0.5
    assert sum(pauses) + asked_s >= 5 * 0.5


def test_a_wait_ends_in_time_with_the_run(api: ScriptedServer, client: Client) -> None:
    api.always = ok(run(status="running"))
    begun = time.monotonic()
    with pytest.raises(WaitTimeout, match=r"^the run run_1 has not ended after 1.2 s; it is running$") as caught:
        client.wait("run_1", timeout_s=1.2)
    assert 1.2 <= time.monotonic() - begun < 15
    assert caught.value.run.status == "running"
    assert isinstance(caught.value, TimeoutError)
    assert api.targets[0] == "/agent/runs/run_1?wait=1"
    assert api.targets[-1] == "/agent/runs/run_1"


def test_a_wait_of_no_time_asks_once(api: ScriptedServer, client: Client) -> None:
    api.always = ok(run())
    with pytest.raises(WaitTimeout):
        client.wait("run_1", timeout_s=0)
    assert api.targets == ["/agent/runs/run_1"]


def test_a_response_that_is_held_back_for_longer_than_the_timeout_is_awaited(
    api: ScriptedServer, connect: Connect
) -> None:
    def late(wire: Any) -> None:
        time.sleep(1)
        ended()(wire)

    api.always = late
    with connect(api.url, TOKEN, timeout_s=0.2) as client:
        assert client.wait("run_1").ended
    assert len(api.requests) == 1


def test_a_wait_survives_an_api_that_is_away_for_less_than_the_patience(
    api: ScriptedServer, connect: Connect, pauses: list[float]
) -> None:
    api.then(*[reset] * 12, ok(run()), *[problem(503, "no Redis")] * 7, ended())
    notes: list[str] = []
    with connect(api.url, TOKEN, notify=notes.append) as client:
        assert client.wait("run_1").ended
    assert notes[0].startswith("cannot reach the API at ")
    assert notes[1:] == ["connected again", "no Redis; trying again", "connected again"]


def test_a_wait_ends_with_the_patience(api: ScriptedServer, connect: Connect, pauses: list[float]) -> None:
    api.always = reset
    with connect(api.url, TOKEN, patience_s=0) as client, pytest.raises(Unreachable):
        client.wait("run_1")


def test_run_returns_the_run_that_succeeded(api: ScriptedServer, client: Client) -> None:
    api.then(ok(run(), 201), ended(result={"a": 1}))
    assert client.run(shell("seq 3"), metadata={"a": "b"}).result == {"a": 1}
    assert api.requests[0].json == {
        "plan": [{"tool": "shell", "args": {"command": "seq 3"}}],
        "metadata": {"a": "b"},
        "start": True,
    }


def test_run_raises_with_the_error_and_the_last_lines_of_the_failed_step(api: ScriptedServer, client: Client) -> None:
    printed = [
        *[{"text": f"line {n}"} for n in range(5)],
        {"text": "10%"},
        *[{"text": f"{n}%", "replaces_line": True} for n in range(20, 101)],
        {"text": "line", "more": True},
        {"text": " 6"},
    ]
    lines = [{"seq": n, "ts": 1, "type": "tool.output", "data": data} for n, data in enumerate(printed, 1)]
    failure = {"code": "exit_code", "message": "no such file", "step": 2}
    api.then(
        ok(run(), 201),
        ended("failed", error=failure),
        ok({"events": lines, "next_after": 90, "done": True, "first_seq": 1, "last_seq": 99}),
    )
    with pytest.raises(RunFailed, match=r"^the run run_1 has failed: no such file \(exit_code\)$") as caught:
        client.run(shell("cat none"))
    assert caught.value.run.status == "failed"
    assert caught.value.error
    assert (caught.value.error.code, caught.value.stderr) == (
        "exit_code",
        [*(f"line {n}" for n in range(5)), "100%", "line 6"],
    )
    assert api.targets[-1] == "/agent/logs/run_1?tail=100&step=2&stream=stderr&type=tool.output"


def test_run_raises_the_failure_even_if_the_log_cannot_be_read(
    api: ScriptedServer, client: Client, pauses: list[float]
) -> None:
    api.then(ok(run(), 201), ended("failed", error={"code": "c", "message": "m", "step": 0}))
    api.always = problem(503, "no store")
    with pytest.raises(RunFailed) as caught:
        client.run(shell("x"))
    assert caught.value.stderr == []


@pytest.mark.parametrize(("status", "words"), [("cancelled", "was cancelled"), ("waiting", "waits for input")])
def test_run_raises_for_a_run_that_did_not_succeed(
    api: ScriptedServer, client: Client, status: str, words: str
) -> None:
    api.then(ok(run(), 201), ended(status))
    with pytest.raises(RunFailed, match=f"^the run run_1 {words}$"):
        client.run(shell("x"))


def test_run_uploads_its_files_before_it_starts(api: ScriptedServer, client: Client, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"1,2")
    target = {"method": "PUT", "url": f"{api.url}/store", "headers": {}, "expires_ms": 1}
    announced, stored = ok({"path": "a", "upload": target}), reply(200)
    api.then(ok(run(status="created"), 201), announced, stored, announced, stored, ok(state()), ended())
    client.run(shell("x"), files={"a.csv": tmp_path / "a.csv", "b": b"text"})
    assert [(request.method, request.target) for request in api.requests] == [
        ("POST", "/agent/runs"),
        ("PUT", "/agent/runs/run_1/files/a.csv"),
        ("PUT", "/store"),
        ("PUT", "/agent/runs/run_1/files/b"),
        ("PUT", "/store"),
        ("POST", "/agent/runs/run_1/start"),
        ("GET", "/agent/runs/run_1?wait=20"),
    ]
    assert api.requests[0].json["start"] is False


def test_a_run_whose_files_cannot_be_uploaded_is_deleted(api: ScriptedServer, client: Client, tmp_path: Path) -> None:
    api.then(ok(run(status="created"), 201), reply(204))
    with pytest.raises(FileNotFoundError):
        client.run(shell("x"), files={"a": tmp_path / "none"})
    assert [(request.method, request.target) for request in api.requests][1:] == [("DELETE", "/agent/runs/run_1")]


def test_a_repeated_run_that_has_started_only_waits(api: ScriptedServer, client: Client) -> None:
    api.then(ok(run(status="running")), ended())
    client.run(shell("x"), files={"a": b"x"}, idempotency_key="k")
    assert api.targets == ["/agent/runs", "/agent/runs/run_1?wait=20"]
