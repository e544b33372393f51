"""Commands of other distributions: found by entry points, imported when they run, one line where they are missing."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints, distribution
from types import ModuleType

import pytest
import typer

from swissbrain.cli import server_commands
from swissbrain.cli.server_commands import GROUP, SERVER_COMMANDS
from tests.client.conftest import Command

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Replace the entry points of the installed distributions by the given ones."""

    def replace(**points: str) -> None:
        found = EntryPoints(EntryPoint(name, value, GROUP) for name, value in points.items())
        monkeypatch.setattr(server_commands, "entry_points", lambda group: found.select(group=group))

    replace()
    return replace


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Provide an importable module named `plugin`."""
    module = ModuleType("plugin")
    monkeypatch.setitem(sys.modules, "plugin", module)
    return module


@pytest.mark.parametrize("words", [("dev",), ("demo",), ("dev", "--port", "1"), ("demo", "--help")])
def test_a_missing_server_distribution_is_one_line(
    swissbrain: Command, install: Install, words: tuple[str, ...]
) -> None:
    line = (
        f"swissbrain: the command '{words[0]}' needs the package swissbrain-server, which is not installed; "
        "install it with: pip install 'swissbrain-server[dev]'\n"
    )
    assert swissbrain(*words) == (2, "", line)


def test_a_command_that_cannot_be_imported_is_one_line(swissbrain: Command, install: Install) -> None:
    install(dev="no_such_module:dev", demo="tests.client.conftest:no_such_function")
    for name in ("dev", "demo"):
        reply = swissbrain(name)
        assert (reply.code, reply.out, reply.err.count("\n")) == (2, "", 1)
        assert f"the command '{name}'" in reply.err
        assert "no_such" in reply.err
    assert swissbrain("--help").code == 0


def test_a_function_becomes_a_command(swissbrain: Command, install: Install, plugin: ModuleType) -> None:
    def greet(name: str, times: int = 1) -> None:
        """Greet a person."""
        typer.echo(f"hello {name} " * times)

    plugin.greet = greet  # type: ignore[attr-defined]
    install(greet="plugin:greet")
    assert swissbrain("greet", "Ada") == (0, "hello Ada \n", "")
    assert "Greet a person." in swissbrain("greet", "-h").out
    assert swissbrain("greet").err == "swissbrain: Missing argument 'name'.\n"
    assert "greet" in swissbrain("--help").out


def test_a_typer_app_becomes_a_group_of_commands(swissbrain: Command, install: Install, plugin: ModuleType) -> None:
    app = typer.Typer()

    @app.command()
    def add(name: str) -> None:
        typer.echo(f"added {name}")

    @app.command()
    def fail() -> None:
        raise typer.Exit(3)

    plugin.app = app  # type: ignore[attr-defined]
    install(keys="plugin:app")
    assert swissbrain("keys", "add", "k") == (0, "added k\n", "")
    assert swissbrain("keys", "fail").code == 3
    assert swissbrain("keys", "none").code == 2


def test_no_distribution_replaces_a_command_of_the_client(
    swissbrain: Command, install: Install, plugin: ModuleType
) -> None:
    install(show="plugin:app", **{"no-such": "plugin:app"})
    assert swissbrain("show").err == "swissbrain: Missing argument 'RUN'.\n"
    assert swissbrain("--help").out.count("│ show ") == 1


def test_the_client_knows_the_commands_of_the_server_distribution_and_their_help() -> None:
    points = distribution("swissbrain-server").entry_points.select(group=GROUP)
    assert {point.name: (point.load().__doc__ or "").partition("\n")[0] for point in points} == SERVER_COMMANDS


@pytest.mark.parametrize(("words", "code"), [("--help", 0), ("run --help", 0), ("run --limit a=1", 2)])
def test_neither_help_nor_bad_input_imports_the_http_library_or_the_servers(words: str, code: int) -> None:
    loaded, ended = modules_of(words)
    assert ended == code
    assert {"rich", "swissbrain"} <= loaded
    assert not loaded & {"boto3", "edge_api", "httpx", "infra", "redis", "starlette", "tenacity", "worker"}


def test_the_version_needs_none_of_the_commands() -> None:
    loaded, ended = modules_of("--version")
    assert ended == 0
    assert not loaded & {"httpx", "rich", "yaml"}


def test_the_command_of_the_http_library_is_not_imported() -> None:
    loaded, ended = modules_of("show run_1", SWISSBRAIN_API_URL="http://127.0.0.1:1", SWISSBRAIN_TOKEN="t")
    assert ended == 2
    assert "httpx" in loaded
    assert not loaded & {"click", "httpx._main", "pygments"}


def modules_of(words: str, **variables: str) -> tuple[set[str], int]:
    """Return the packages, and the modules of httpx, that a command imports; and its exit code."""
    code = "import sys\nfrom swissbrain.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    names = done.stdout.splitlines()[-1].split()
    return {name if name.startswith("httpx.") else name.partition(".")[0] for name in names}, done.returncode
