"""Both distributions as users get them: the content of the wheels, and what works once they are installed."""

import subprocess
import sys
from configparser import ConfigParser
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from scripts.wheels import Wheels
from tests.packaging.conftest import ROOT, Project, install

PROGRAM = """
from swissbrain import Client, Event, PlanStep, Run


def follow(url: str, token: str) -> Run:
    with Client(url, token) as client:
        run = client.create_run(plan=[PlanStep(tool="message", args={"text": "hello"})])
        for item in client.events(run.run_id):
            if isinstance(item, Event):
                print(item.seq + 1, item.type.upper())
        return client.get_run(run.run_id)
"""
MISUSE = """
from swissbrain import Client, Run

run: Run = Client("http://api", "token").queue()
"""
IMPORT = """
from swissbrain import Client, Event, PlanStep, Run
import infra
print(infra.NAME)
"""


def names(wheel: Path) -> set[str]:
    """Return the files of a wheel without its metadata."""
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def entry_points(wheel: Path) -> dict[str, dict[str, str]]:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        parser = ConfigParser()
        parser.read_string(archive.read(name).decode())
    return {group: dict(parser[group]) for group in parser.sections()}


def sources(*packages: str) -> set[str]:
    """Return the files of packages in the checkout."""
    files = (path for package in packages for path in (ROOT / package).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}


def type_errors(project: Project, **programs: str) -> dict[str, str]:
    """Check programs by their names, in one process; return the output about each."""
    for name, program in programs.items():
        (project.folder / f"{name}.py").write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", str(project.python)]
    command += ["--no-error-summary", *(f"{name}.py" for name in programs)]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    return {name: "\n".join(line for line in lines if line.startswith(f"{name}.py:")) for name in programs}


def test_each_wheel_holds_all_files_of_its_packages_and_no_other(wheels: Wheels) -> None:
    assert names(wheels.client) == sources("swissbrain")
    assert names(wheels.server) == sources("edge_api", "worker", "infra")
    assert "swissbrain/py.typed" in names(wheels.client)
    assert "edge_api/stream-wrapper" in names(wheels.server)
    assert any(name.endswith(".lua") for name in names(wheels.server))


def test_both_distributions_have_one_version_and_their_entry_points(wheels: Wheels) -> None:
    client, server = metadata(wheels.client), metadata(wheels.server)
    assert client["Version"] == server["Version"]
    assert f"swissbrain=={client['Version']}" in server.get_all("Requires-Dist", [])
    assert {"edge", "worker", "gateway", "egress", "qstash", "dev"} <= {*server.get_all("Provides-Extra", [])}
    assert client.get_all("License-File") == server.get_all("License-File") == ["LICENSE"]
    assert entry_points(wheels.client) == {"console_scripts": {"swissbrain": "swissbrain.cli:main"}}
    assert entry_points(wheels.server) == {
        "console_scripts": {
            "swissbrain-api": "edge_api.__main__:main",
            "swissbrain-egress": "infra.egress.__main__:main",
            "swissbrain-gateway": "infra.gateway.__main__:main",
            "swissbrain-qstash": "infra.qstash_local.__main__:main",
            "swissbrain-worker": "worker.__main__:main",
        },
        "swissbrain.commands": {
            "demo": "infra.commands.demo:demo",
            "recovery": "infra.commands.recovery:recovery",
            "cost": "infra.commands.cost:cost",
            "deploy": "infra.commands.deploy:deploy",
            "dev": "infra.commands.dev:dev",
            "rollback": "infra.commands.rollback:rollback",
            "sweep": "infra.commands.sweep:sweep",
            "verify": "infra.commands.verify:verify",
        },
    }


def test_the_client_works_alone_beside_modules_named_as_server_packages(wheels: Wheels, project: Project) -> None:
    install(project, wheels.client)

    imported = project.run("python", "-c", IMPORT)
    assert (imported.stdout, imported.stderr) == ("infra of the project\n", "")

    found = type_errors(project, program=PROGRAM, misuse=MISUSE)
    assert found["program"] == ""
    assert 'expression has type "QueueDepths"' in found["misuse"]

    assert project.run("swissbrain", "--version").stdout.startswith("swissbrain 0.")
    assert "dev" in project.run("python", "-m", "swissbrain", "--help").stdout
    for name in ("dev", "demo"):
        missing = project.run("swissbrain", name)
        assert (missing.returncode, missing.stdout, missing.stderr.count("\n")) == (2, "", 1)
        assert "needs the package swissbrain-server" in missing.stderr
        assert "pip install 'swissbrain-server[dev]'" in missing.stderr


def test_the_servers_bring_their_commands_and_programs(full_project: Project) -> None:
    assert "--port" in full_project.run("swissbrain", "dev", "--help").stdout
    assert "--unsafe-no-sandbox" in full_project.run("swissbrain", "demo", "--help").stdout
    # `python -m worker` would run the project's own worker.py.
    assert "Works on runs until SIGTERM" in full_project.run("swissbrain-worker", "--help").stdout
    for program in ("swissbrain-api", "swissbrain-egress", "swissbrain-gateway"):
        started = full_project.run(program)
        assert (started.returncode, started.stderr.count("\n")) == (2, 1), started.stderr


@pytest.mark.parametrize("name", ["dev", "demo"])
def test_modules_of_the_project_that_hide_the_servers_are_one_line(full_project: Project, name: str) -> None:
    hidden = full_project.run("python", "-m", "swissbrain", name)  # -m puts the project's folder on the path
    assert (hidden.returncode, hidden.stdout, hidden.stderr.count("\n")) == (2, "", 1)
    assert f"the command '{name}' of swissbrain-server cannot be imported" in hidden.stderr
