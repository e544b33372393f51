"""The shipped units: valid for systemd, hardened, and set exactly what their programs read."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.vm import env_files
from deploy.vm.layout import PARTS, UNITS, Layout
from deploy.vm.machine import Machine
from deploy.vm.settings_files import TEMPLATES, Settings
from infra.settings import Env
from tests.docs.pages import ROOT, documented_defaults
from tests.support.program_settings import PROGRAMS
from tests.support.recorded_env import RecordedEnv
from tests.vm.units import Unit, moved, shipped
from worker.settings import WorkerSettings

SHIPPED = shipped()
SERVICES = {name: unit for name, unit in SHIPPED.items() if name.endswith(".service")}
OPERATOR = {
    "web.env": {"SITE_ADDRESS": "agents.example.ch"},
    "shared.env": {"S3_ACCESS_KEY": "key", "S3_SECRET_KEY": "secret"},
}
OWN = {"HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"}
"""Variables that Caddy itself reads."""
MODEL = {"LLM_BASE_URL": "https://models.example/v1", "LLM_MODEL": "apertus-70b"}
EXPOSURE = {"swissbrain-worker.service": 40}
"""Highest exposure in tenths, by the rating of systemd; 20 for the others."""
NEEDED_BY_SANDBOX = {"RestrictNamespaces", "ProtectProc", "ProtectKernelTunables", "ProtectKernelLogs"}
NEEDED_BY_SANDBOX |= {"ProtectHostname", "ProcSubset", "MemoryDenyWriteExecute", "RestrictSUIDSGID"}
"""What would keep bubblewrap from making a sandbox, or programs from working in it."""

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the settings of an installation."""
    layout = Layout(tmp_path_factory.mktemp("settings"))
    made = Settings(layout, Machine())
    made.create(OPERATOR, "ada")
    made.complete()
    return layout.settings


def program(unit: Unit) -> str:
    """Return the name of a unit's program in PROGRAMS, or that of another server."""
    name = Path(unit.command[0]).name
    return unit.command[1] if name == "swissbrain" else name.removeprefix("swissbrain-")


def environment(unit: Unit, settings: Path) -> dict[str, str]:
    """Return the environment of a service."""
    found = {name: value.replace("%S", "/var/lib") for name, value in unit.environment.items()}
    for name, path in unit.credentials.items():
        found = {key: value.replace(f"%d/{name}", moved(path, settings.parents[1])) for key, value in found.items()}
    for file in unit.files:
        source = settings / file.removeprefix("-")
        if source.exists() or not file.startswith("-"):
            found |= env_files.read(source)
    return found


def read_by(unit: Unit, variables: Mapping[str, str]) -> set[str]:
    """Return the names of the variables that a service reads. Fails if one is missing or wrong."""
    env = RecordedEnv({**variables, **(MODEL if program(unit) == "worker" else {})})
    for reader in PROGRAMS.get(program(unit), ()):
        reader(env)
    caddyfile = set(re.findall(r"\{\$([A-Z_]+)", (ROOT / "deploy/vm/Caddyfile").read_text()))
    return env.names | unit.references | (caddyfile | OWN if program(unit) == "caddy" else set())


def offered(file: str) -> set[str]:
    """Return the variables of a file of the operator, those in comments too."""
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (TEMPLATES / file).read_text(), re.MULTILINE))


@needs_systemd
def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    (tmp_path / "units").mkdir()
    for name, unit in SHIPPED.items():
        text = moved((UNITS / name).read_text(), tmp_path)
        (tmp_path / "units" / name).write_text(text)
        for command in unit.all("ExecStart"):
            binary = Path(moved(command.split()[0], tmp_path))
            binary.parent.mkdir(parents=True, exist_ok=True)
            binary.touch(0o755)
    names = [str(tmp_path / "units" / name) for name in SHIPPED]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_rates_every_service_as_little_exposed() -> None:
    for limit in (20, *set(EXPOSURE.values())):
        names = [str(UNITS / name) for name in SERVICES if EXPOSURE.get(name, 20) == limit]
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={limit}", *names]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_systemd
def test_systemd_makes_a_user_for_every_service_that_names_one(tmp_path: Path) -> None:
    if not shutil.which("systemd-sysusers"):
        pytest.skip("systemd-sysusers is not installed")
    (tmp_path / "etc").mkdir()
    command = ["systemd-sysusers", f"--root={tmp_path}", str(ROOT / "deploy/vm/sysusers.conf")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {line.split(":")[0] for line in (tmp_path / "etc" / "passwd").read_text().splitlines()}
    named = {unit.get("User", "root") for unit in SERVICES.values()}
    assert named - {"root"} == {name for name in made if name.startswith("swissbrain-")}
    assert [name for name, unit in SERVICES.items() if not unit.get("User")] == ["swissbrain-backup.service"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_gets_valid_settings(name: str, settings: Path) -> None:
    unit = SERVICES[name]
    variables = environment(unit, settings)
    missing = read_by(unit, variables) - set(variables) - {"HTTP_PORT", "HTTPS_PORT"}
    defaults = documented_defaults()
    assert {each for each in missing if defaults.get(each, "") in {"", "required"}} == set()
    assert set(unit.environment) <= read_by(unit, variables)


@pytest.mark.parametrize("file", sorted({file for unit in SERVICES.values() for file in unit.files}))
def test_each_variable_in_a_file_is_read_by_a_service_that_gets_it(file: str, settings: Path) -> None:
    readers = [unit for unit in SERVICES.values() if file in unit.files]
    read = {name for unit in readers for name in read_by(unit, environment(unit, settings))}
    path = settings / file.removeprefix("-")
    names = set(env_files.read(path)) | (offered(path.name) if (TEMPLATES / path.name).exists() else set())
    if not file.startswith("-"):
        assert names
        assert path.stat().st_mode & 0o777 == 0o600
    assert names - read == set()


def test_the_files_of_the_operator_are_given_to_services_or_read_by_the_command() -> None:
    given = {file for unit in SERVICES.values() for file in unit.files}
    assert {path.name for path in TEMPLATES.iterdir()} - given == {"ports.env"}


def test_the_target_wants_everything_that_runs_on_its_own() -> None:
    wanted = set(SHIPPED["swissbrain.target"].words("Wants", "Unit"))
    timers = {name for name in SHIPPED if name.endswith(".timer")}
    assert wanted == timers | {f"swissbrain-{part}.service" for part in PARTS} | {"swissbrain-recovery.service"}
    assert set(SERVICES) == {name.replace(".timer", ".service") for name in timers} | (wanted - timers)
    for name in wanted:
        assert SHIPPED[name].get("PartOf", section="Unit") == "swissbrain.target"


@pytest.mark.parametrize("part", PARTS)
def test_each_server_is_restarted_for_ever_and_bounded(part: str) -> None:
    unit = SERVICES[f"swissbrain-{part}.service"]
    assert (unit.get("Restart"), unit.get("StartLimitIntervalSec", section="Unit")) == ("always", "0")
    assert {"MemoryMax", "TasksMax", "LimitNOFILE", "TimeoutStopSec"} <= set(unit.sections["Service"])


def test_the_worker_has_time_to_drain_and_survives_its_programs() -> None:
    unit = SERVICES["swissbrain-worker.service"]
    variables = {name: value.replace("%S", "/var/lib") for name, value in unit.environment.items()}
    worker = WorkerSettings.from_env(Env(variables))
    assert int(unit.get("TimeoutStopSec")) >= worker.grace_s + 30
    assert (unit.get("KillMode"), unit.get("OOMPolicy")) == ("mixed", "continue")
    assert worker.root == Path("/var/lib") / unit.get("StateDirectory")
    assert NEEDED_BY_SANDBOX & set(unit.sections["Service"]) == set()
    assert unit.get("SystemCallFilter").startswith("~")
    assert "@mount" not in unit.get("SystemCallFilter")


def test_all_services_but_the_worker_are_hardened_alike() -> None:
    exceptions = {"CapabilityBoundingSet", "AmbientCapabilities", "IPAddressAllow", "IPAddressDeny"}
    hardening = re.compile(r"NoNew|Capab|UMask|Lock|Private|Protect|Restrict[A-Z]|MemoryDeny|SystemCall")
    found = {
        name: {(key, *values) for key, values in unit.sections["Service"].items() if hardening.match(key)}
        for name, unit in SERVICES.items()
    }
    worker = found.pop("swissbrain-worker.service")
    alike = {frozenset(entry for entry in each if entry[0] not in exceptions) for each in found.values()}
    assert len(alike) == 1
    (common,) = alike
    assert {entry[0] for entry in common} - {entry[0] for entry in worker} == NEEDED_BY_SANDBOX - {"ProcSubset"}
    capable = {name for name, unit in SERVICES.items() if unit.get("CapabilityBoundingSet")}
    assert capable == {"swissbrain-web.service"}
