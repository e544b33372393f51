"""The command `swissbrain` as a user starts it: a separate process in a separate folder."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ALONE = {
    name: value for name, value in os.environ.items() if not name.startswith(("SWISSBRAIN_", "COV_", "LLM_", "AGENT_"))
}


def swissbrain(
    folder: Path, *words: str, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, with more environment variables."""
    return subprocess.run(
        [sys.executable, "-m", "swissbrain", *words],
        cwd=folder,
        env={**ALONE, **(variables or {})},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


class Ended(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


_IN_ONE_PROCESS = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from swissbrain.cli import main

for words in json.loads(sys.argv[1]):
    sys.argv = ["swissbrain", *words]
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, *(stream.buffer.getvalue().decode() for stream in (out, err))]))
"""


def one_after_another(folder: Path, commands: Sequence[Sequence[str]]) -> list[Ended]:
    """Run commands in one process, because starting Python takes most of the time of each."""
    words = [sys.executable, "-c", _IN_ONE_PROCESS, json.dumps(commands)]
    done = subprocess.run(words, cwd=folder, env=ALONE, stdout=subprocess.PIPE, text=True, timeout=100, check=True)
    return [Ended(*json.loads(line)) for line in done.stdout.splitlines()]


def start(folder: Path, *words: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the command, with more environment variables, and return its process."""
    command = [sys.executable, "-m", "swissbrain", *words]
    env = {**ALONE, **(variables or {})}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
