"""Completion by the shell: commands, options, and ids of runs; silent if the API is away."""

import os
import subprocess
import sys
import time

import pytest

from swissbrain.access import TOKEN as TOKEN_VARIABLE
from swissbrain.access import URL
from tests.client.scripted_server import TOKEN, ScriptedServer, ok, silent, summary


def complete(line: str, **env: str) -> tuple[list[str], str]:
    """Return what bash would offer for a line, and the error output."""
    words = line.split(" ")
    variables = {"_SWISSBRAIN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    script = "import sys; sys.argv = ['swissbrain']; from swissbrain.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.split(), done.stderr


def test_commands_options_and_statuses_are_completed(api: ScriptedServer) -> None:
    assert set(complete("swissbrain re")[0]) == {"recovery", "resume", "retry"}
    assert "--created-after" in complete("swissbrain runs --cr")[0]
    assert complete("swissbrain runs --status f")[0] == ["failed"]


@pytest.mark.parametrize("line", ["show ", "logs run_1", "cancel run_0 run_1", "wait run_1", "files run_1"])
def test_ids_of_runs_are_completed(api: ScriptedServer, line: str) -> None:
    api.always = ok({"runs": [summary("run_11"), summary("run_12"), summary("job_3")], "next_cursor": None})
    offered, error = complete(f"swissbrain {line}", **{URL: api.url, TOKEN_VARIABLE: TOKEN})
    assert error == ""
    assert {"run_11", "run_12"} <= set(offered)
    assert ("job_3" in offered) == (line == "show ")


def test_an_api_that_is_away_or_silent_completes_nothing(api: ScriptedServer) -> None:
    api.always = silent
    for url in ("http://127.0.0.1:1", api.url, "nonsense"):
        began = time.monotonic()
        assert complete("swissbrain show ", **{URL: url, TOKEN_VARIABLE: TOKEN}) == ([], "")
        assert time.monotonic() - began < 20
