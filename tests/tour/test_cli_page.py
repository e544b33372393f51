"""Every command of the page on the command line, as it is printed there, on a terminal of 80 columns."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swissbrain.cli.app import COMMANDS
from tests.docs.pages import DOCS, blocks
from tests.support.redis import free_port
from tests.support.terminal import TerminalResult, on_terminal
from tests.tour.commands import ALONE, swissbrain
from tests.tour.test_dev import dev

EXAMPLES = [line for block in blocks(DOCS / "cli.md", "sh") for line in block.splitlines()]
SCHEDULE_ID = re.compile(r"sch_[0-9a-f]{32}")
RUN_ID = re.compile(r"run_[0-9a-f]{32}")
PLAN = blocks(DOCS / "cli.md", "yaml")[0]
FILES = {
    "data.csv": "planet,moons\nMars,2\nEarth,1\n",
    "report.py": "import sys\nprint(sys.argv[1:], len(open(sys.argv[1]).read().splitlines()))\n",
    "chart.py": "open('report.html', 'w').write('<h1>chart</h1>')\n",
    "plan.json": '[{"tool": "message", "args": {"text": "hello"}}]',
    "rules.yaml": "- tool: shell\n  policy: ask\n",
    "plan.yaml": PLAN.replace("wc -l data.csv", "echo counted"),
}
FAILING = ("--shell", "mkdir out; echo 1 > out/a.csv; echo page > report.html", "--shell", "echo why >&2; exit 7")
PEOPLE = ("resume", "approve", "deny", "say", "interrupt")
ENDS_WITH = {"--failed": 0, "logs RUN -f": 1, "wait RUN": 1}
"""Exit codes other than 0, of commands about a run that has failed."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run a dev stack; yield its folder, with the files that the page names and a command `swissbrain`."""
    made = tmp_path_factory.mktemp("page")
    for name, content in FILES.items():
        (made / name).write_text(content)
    (made / "bin").mkdir()
    command = made / "bin" / "swissbrain"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m swissbrain "$@"\n')
    command.chmod(0o755)
    with dev(made, free_port(), {"TOOLS_NETWORK_ALLOW": "pypi.org:443"}):
        yield made


@pytest.fixture(scope="module")
def failed_run(folder: Path) -> str:
    """Return the id of a run that has failed at its second step and has files."""
    made = swissbrain(folder, "run", *FAILING, "-f")
    assert made.returncode == 1, made.stderr
    return str(RUN_ID.findall(made.stderr)[0])


@pytest.fixture(scope="module")
def schedule(folder: Path) -> str:
    """Return the id of a schedule."""
    made = swissbrain(folder, "schedule", "create", "0 8 1 * *", "--shell", "echo monthly")
    assert made.returncode == 0, made.stderr
    return str(SCHEDULE_ID.findall(made.stdout)[0])


def on_a_terminal(folder: Path, line: str, columns: int = 80) -> TerminalResult:
    """Run a command line with bash."""
    keys = '[{"user": "ada", "scopes": ["runs:read"], "sha256": "' + "0" * 64 + '"}]'
    env = {**ALONE, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SWISSBRAIN_API_KEYS": keys}
    return on_terminal(["bash", "-c", line], cwd=folder, env=env, columns=columns)


@pytest.mark.parametrize("line", EXAMPLES)
def test_each_command_of_the_page_works_at_80_columns(folder: Path, failed_run: str, schedule: str, line: str) -> None:
    result = on_a_terminal(folder, line.replace("RUN", failed_run).replace("SCHEDULE", schedule))
    expected = next((code for part, code in ENDS_WITH.items() if part in line), 0)
    assert result.code == expected, result.text
    assert "Traceback" not in result.text
    # An id is never cut: wherever one begins, it is whole.
    assert set(re.findall(r"run_[0-9a-f]\w*", result.text)) == set(RUN_ID.findall(result.text))
    assert set(re.findall(r"sch_[0-9a-f]\w*", result.text)) == set(SCHEDULE_ID.findall(result.text))


def test_the_page_has_an_example_of_every_command() -> None:
    used = {words[words.index("swissbrain") + 1] for words in map(shlex.split, EXAMPLES)}
    piped = {line.split("| swissbrain ")[1].split()[0] for line in EXAMPLES if "| swissbrain " in line}
    # The others are executed below, or change what the examples need.
    assert {*COMMANDS} - used - piped == {"start", "fork", *PEOPLE}


TABLES = ("runs", "show RUN", "show RUN --attempts", "steps RUN", "files RUN", "queue")
IN_ONE_PROCESS = """
import sys
from swissbrain.cli import main

for line in sys.argv[1:]:
    sys.argv = ["swissbrain", *line.split()]
    try:
        main()
    except SystemExit as end:
        print(f"exit code {end.code}")
"""
"""Program that executes each of its arguments as a command line, because starting Python takes most of the time."""


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_tables_fit_every_terminal(folder: Path, failed_run: str, columns: int) -> None:
    words = [line.replace("RUN", failed_run) for line in TABLES]
    result = on_a_terminal(folder, shlex.join([sys.executable, "-c", IN_ONE_PROCESS, *words]), columns)
    *tables, rest = re.split(r"^exit code 0\n", result.text, flags=re.MULTILINE)
    assert (result.code, len(tables), rest) == (0, len(TABLES), ""), result.text
    assert all(len(text) <= columns for text in result.text.splitlines())
    for line, table in zip(TABLES, tables, strict=True):
        assert table.strip(), line
        assert set(re.findall(r"run_[0-9a-f]\w*", table)) == set(RUN_ID.findall(table))
        if line in {"runs", "show RUN"}:
            assert failed_run in table


def test_the_other_commands_of_the_table_work(folder: Path, failed_run: str) -> None:
    created = swissbrain(folder, "run", "--shell", "echo late", "--no-start").stdout.strip()
    assert on_a_terminal(folder, f"swissbrain start {created}").text == "queued\n"
    assert on_a_terminal(folder, f"swissbrain wait {created}").text == f"{created} succeeded\n"
    for name in PEOPLE:
        words = f"{name} {created}" + (" text" if name in {"resume", "say"} else "")
        refused = on_a_terminal(folder, f"swissbrain {words}")
        assert (refused.code, refused.text.count("swissbrain: ")) == (2, 1), refused.text
        assert "succeeded" in refused.text or "explicit plan" in refused.text
    forked = on_a_terminal(folder, f"swissbrain fork {failed_run} --from-step 2 --plan plan.yaml -f")
    assert forked.code == 0
    assert "run continues from step 2" in forked.text
    assert "│ counted" in forked.text


def test_a_log_tells_stderr_from_stdout_without_colours(folder: Path, failed_run: str) -> None:
    lines = swissbrain(folder, "logs", failed_run, "--stream", "stderr").stdout.splitlines()
    assert [line[14:] for line in lines] == ["    err │ why"]
    (only,) = swissbrain(folder, "logs", failed_run, "--tail", "1", "--timestamps").stdout.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4}  run failed", only)
