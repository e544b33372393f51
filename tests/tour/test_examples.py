"""Examples, run as programs against a dev stack."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

import httpx
import pytest

from infra.devstack.stack import DevStack
from tests.support.redis import free_port
from tests.support.waiting import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def env(dev_stack: DevStack) -> dict[str, str]:
    """Return the environment of an example: this one, with the API of the stack."""
    return {**os.environ, **{name: dev_stack.env[name] for name in ("SWISSBRAIN_API_URL", "SWISSBRAIN_TOKEN")}}


def example(env: dict[str, str], name: str, *words: str) -> str:
    """Run an example to its end and return its output."""
    command = [sys.executable, str(EXAMPLES / name), *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_chart_is_drawn_from_an_uploaded_file(env: dict[str, str], tmp_path: Path) -> None:
    example(env, "chart_from_csv.py", str(tmp_path))
    assert json.loads((tmp_path / "statistics.json").read_text())["planets"] == 8
    assert Xml.parse(tmp_path / "orbits.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_failed_run_is_retried(env: dict[str, str]) -> None:
    shown = example(env, "failing_and_retry.py")
    assert "last words: ['the source is not ready']" in shown
    assert "after the retry: succeeded; attempts: ['failed', 'succeeded']" in shown


def test_a_fork_takes_over_the_first_step(env: dict[str, str]) -> None:
    shown = example(env, "fork.py")
    assert re.search(r"is succeeded; taken over from ForkOf\(run_id='run_\w+', from_step=1\)\na\nb\nc\n", shown)


def test_many_runs_are_created_and_listed(env: dict[str, str]) -> None:
    assert example(env, "many_runs.py", "30") == "30 runs, 4 failed: 7 14 21 28\n"


def test_a_webhook_is_received_and_verified(env: dict[str, str], receiver_port: int) -> None:
    shown = example(env, "webhook_receiver.py", str(receiver_port))
    assert shown == "run.finished: the run has succeeded, for order 17\nin the log of deliveries: finished\n"


def test_the_service_sorts_text_and_streams_the_output(env: dict[str, str]) -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "warning"]
    with (
        subprocess.Popen(command, env=env, cwd=EXAMPLES / "service") as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http,
    ):
        try:
            wait_until(lambda: answers(http), "the service is up")
            run_id = http.post("/sorted", content="b\na\n").json()["run_id"]
            assert http.get(f"/log/{run_id}").text == "2\n"
            assert http.get(f"/sorted/{run_id}").text == "a\nb\n"
            assert http.get("/sorted/run_none").status_code == 404
        finally:
            process.terminate()


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/").status_code == 404
    except httpx.TransportError:
        return False
