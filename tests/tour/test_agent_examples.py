"""Examples of runs that a model plans, run as programs against a dev stack with the scripted model of the examples."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.commands.demo import show
from infra.commands.demo_tasks import choose
from infra.devstack.background import BackgroundStack
from infra.devstack.stack import DevStack
from infra.settings import Env
from swissbrain import Client
from swissbrain.cli.screen import console
from tests.support.redis import free_port
from tests.support.scripted_model import scripted_model

EXAMPLES = Path(__file__).parents[2] / "examples" / "agent"


@pytest.fixture(scope="module")
def model() -> Iterator[dict[str, str]]:
    with scripted_model() as made:
        yield made


@pytest.fixture(scope="module")
def site_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, model: dict[str, str], site_port: int) -> Iterator[DevStack]:
    """Run a stack whose worker asks the scripted model, and may fetch from the site of the example."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_", "AGENT_"))}
    environment = {**inherited, **model, "HTTP_FETCH_PRIVATE_HOSTS": f"127.0.0.1:{site_port}"}
    with BackgroundStack(DevStack(tmp_path_factory.mktemp("stack"), workers=1, environment=environment)) as made:
        yield made


def example(stack: DevStack, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run an example to its end."""
    env = {**os.environ, **{name: stack.env[name] for name in ("SWISSBRAIN_API_URL", "SWISSBRAIN_TOKEN")}}
    command = [sys.executable, str(EXAMPLES / name), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)


def test_a_report_is_written_from_an_uploaded_table(stack: DevStack, tmp_path: Path) -> None:
    done = example(stack, "data_report.py", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "the total, CHF 23618.60, is right; the best month is 2026-03\n" in done.stdout
    report = (tmp_path / "report.html").read_text()
    assert "Total: CHF 23,618.60" in report
    assert report.count("<rect ") == 4


def test_a_script_is_repaired_and_its_original_tests_pass(stack: DevStack) -> None:
    done = example(stack, "fix_script.py")
    assert (done.returncode, done.stderr) == (0, "")
    calls = done.stdout.split("---")[0].splitlines()
    assert [call for call in calls if call.startswith("shell")] == ["shell: failed", "shell: succeeded"]
    assert "+    return (ordered[middle - 1] + ordered[middle]) / 2\n" in done.stdout
    assert done.stdout.endswith("all tests pass\n")


def test_a_local_site_is_read_page_by_page(stack: DevStack, site_port: int) -> None:
    done = example(stack, "local_research.py", str(site_port))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("fetched: /") == 4
    assert done.stdout.endswith("{'lake': 'Quarry Lake', 'temperature_c': 23.1}\n")


def test_a_site_that_the_operator_does_not_list_is_not_read(stack: DevStack) -> None:
    done = example(stack, "local_research.py", "0")
    assert done.returncode == 1
    assert "fetched" not in done.stdout
    assert done.stderr.startswith("the run ")
    assert "last failure: fetch_not_allowed" in done.stderr


@pytest.mark.parametrize(
    ("request_of_run", "reason"),
    [
        ({"prompt": "Write a poem."}, "the run failed: HTTP 400: this scripted model knows only the tasks"),
        (
            {"prompt": "See sales.csv.", "approvals": [{"tool": "*", "policy": "ask"}]},
            "the run waits for an answer, and nobody gives one: May the run call shell?",
        ),
    ],
)
def test_the_demo_says_why_a_run_did_not_succeed(
    stack: DevStack, request_of_run: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    task = choose(Env({"LLM_BASE_URL": "http://127.0.0.1", "LLM_MODEL": "scripted"}))
    other = replace(task, send=lambda client: client.create_run(**request_of_run))
    with Client(stack.env["SWISSBRAIN_API_URL"], stack.env["SWISSBRAIN_TOKEN"]) as client:
        assert not show(other, client, console())
    assert f"Not as it should be: {reason}" in capsys.readouterr().out


def test_the_scripted_model_replies_without_a_stream_too(model: dict[str, str]) -> None:
    tools = [{"type": "function", "function": {"name": "plan"}}]
    body = {"messages": [{"role": "user", "content": "See sales.csv."}], "tools": tools}
    answer = httpx.post(f"{model['LLM_BASE_URL']}/chat/completions", json=body, trust_env=False).json()
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "plan"


def test_the_scripted_model_says_that_it_knows_no_other_task(model: dict[str, str]) -> None:
    body = {"messages": [{"role": "user", "content": "Write a poem."}], "stream": True}
    answer = httpx.post(f"{model['LLM_BASE_URL']}/chat/completions", json=body, trust_env=False)
    assert answer.status_code == 400
    assert "knows only the tasks of the examples" in answer.json()["error"]["message"]
