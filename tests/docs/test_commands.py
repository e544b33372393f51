"""Commands that the documentation names: `make` targets, `swissbrain` commands, console scripts, modules."""

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from bench.__main__ import BENCHMARKS, SELF_CONTAINED
from swissbrain.cli.app import app
from tests.docs.pages import DOCS, PAGES, ROOT, code, files, name_of
from tests.support.commands import invoke

MAKE = re.compile(r"\bmake ([a-z][a-z-]*)")
SWISSBRAIN = re.compile(r"(?<!from )\bswissbrain ([a-z]+)([^`\n|;#']*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
SCRIPT = re.compile(r"\bswissbrain-[a-z]+\b(?!-)")
OTHER_NAMES = {"swissbrain-deploy", "swissbrain-release", "swissbrain-server", "swissbrain-workspaces"}
"""Names of a Lease, a ConfigMap, a distribution and a bucket."""
OF_ONE_MACHINE = {path.stem for path in (ROOT / "deploy" / "vm" / "units").iterdir()} | {"swissbrain-vm"}
"""Units and the command of an installation on one machine."""
PLAIN = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}


@cache
def options(command: str) -> frozenset[str]:
    """Return the options of a `swissbrain` command, or of a group of commands. Fails if there is no such command."""
    groups = {
        "key": ("new", "list"),
        "schedule": ("create", "list", "next", "pause", "resume", "run-now", "rm"),
    }
    found: set[str] = set()
    for words in [[command], *([command, name] for name in groups.get(command, ()))]:
        shown = invoke(app, [*words, "--help"], env=PLAIN)
        assert shown.exit_code == 0, f"there is no command 'swissbrain {' '.join(words)}'"
        found.update(OPTION.findall(shown.output))
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {target for line in code(page) for target in MAKE.findall(line)} <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_swissbrain_command_and_option_exists(page: Path) -> None:
    for line in code(page):
        for command, rest in SWISSBRAIN.findall(line):
            assert set(OPTION.findall(rest)) <= options(command), line


def test_each_option_in_the_table_of_commands_exists() -> None:
    for line in (DOCS / "cli.md").read_text().splitlines():
        if row := re.match(r"\| `swissbrain (\w+)", line):
            assert set(OPTION.findall(line)) <= options(row[1]), line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_console_script_is_in_the_metadata(page: Path) -> None:
    metadata = [tomllib.loads((ROOT / path).read_text()) for path in files() if path.endswith("pyproject.toml")]
    scripts = {name for each in metadata for name in each["project"].get("scripts", {})}
    named = {script for line in code(page) for script in SCRIPT.findall(line)}
    assert named - OTHER_NAMES - OF_ONE_MACHINE <= scripts


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_module_that_is_run_exists(page: Path) -> None:
    for module in {module for line in code(page) for module in re.findall(r"python3? -m ([\w.]+)", line)}:
        path = module.replace(".", "/")
        assert module in {"http.server", "venv"} or f"{path}.py" in files() or f"{path}/__main__.py" in files(), module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_benchmark_exists(page: Path) -> None:
    listed = [names for line in code(page) for names in re.findall(r"python -m bench((?: [a-z\d-]+)+)", line)]
    assert {name for names in listed for name in names.split()} <= {*BENCHMARKS, *SELF_CONTAINED}


def test_the_page_on_benchmarks_names_every_benchmark() -> None:
    page = (DOCS / "benchmarks.md").read_text()
    assert [
        name for name in (*BENCHMARKS, *SELF_CONTAINED) if not re.search(rf"python -m bench[^`]*\b{name}\b", page)
    ] == []
