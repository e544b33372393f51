"""Installing, upgrading and rolling back, with releases whose servers are small, and a real Valkey."""

import json
import os
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.vm.__main__ import main
from deploy.vm.commands import Vm
from deploy.vm.layout import PARTS, Layout
from deploy.vm.machine import Machine, UsageError, VmError
from deploy.vm.services import _command
from tests.docs.pages import ROOT
from tests.vm.ports import all_ports
from tests.vm.releases import small
from tests.vm.supervisor import SupervisedMachine, Supervisor

GOOD, BAD = "exit 0", "echo 'the run failed'; exit 1"


def values() -> dict[str, dict[str, str]]:
    return {
        "web.env": {"SITE_ADDRESS": "agents.example.ch"},
        "shared.env": {"S3_ACCESS_KEY": "key-of-the-store", "S3_SECRET_KEY": "secret-of-the-store"},
        "ports.env": all_ports(),
    }


def vm(supervisor: Supervisor, layout: Layout, name: str, verify: str = GOOD) -> tuple[Vm, SupervisedMachine]:
    """Return the commands of a release, and the machine that they change."""
    machine = SupervisedMachine(supervisor)
    return Vm(machine, layout, build=small(name, verify)), machine


def answering(made: Vm) -> str:
    """Return the name of the release whose API answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{made.settings.ports().api}/ready", timeout=20) as response:
        return str(json.load(response)["status"])


def test_an_upgrade_that_does_not_work_is_undone_and_one_that_works_can_be_rolled_back(
    supervisor: Supervisor, layout: Layout
) -> None:
    first, _ = vm(supervisor, layout, "first")
    first.install(values(), "ada")
    former = layout.target(layout.current)

    broken, machine = vm(supervisor, layout, "broken", BAD)
    with pytest.raises(VmError, match=r"does not work, .* runs again: .*verify failed with exit code 1"):
        broken.upgrade()
    assert "  the run failed" in machine.lines
    assert (layout.target(layout.current), answering(first)) == (former, "first")
    assert len(list(layout.backups.glob("*.tar"))) == 1
    with pytest.raises(UsageError, match="no previous release"):
        first.rollback()

    second, machine = vm(supervisor, layout, "second")
    second.upgrade()
    assert answering(second) == "second"
    steps = [line.split()[2:4] for line in machine.lines if line.startswith("+ systemctl")]
    restarts = [words for words in steps if words[0] in {"stop", "restart"} and words[1] != "systemd-sysctl.service"]
    # The worker drains before anything else stops, and takes runs again before the API takes new ones.
    assert restarts[0] == ["stop", "swissbrain-worker.service"]
    assert [words[1] for words in restarts[1:7]] == [f"swissbrain-{part}.service" for part in PARTS]
    second.rollback()
    assert (layout.target(layout.current), answering(first)) == (former, "first")
    second.rollback()
    assert answering(second) == "second"
    assert len(layout.installed()) == 3


def test_after_an_upgrade_that_was_killed_the_way_back_is_the_release_that_worked_last(
    supervisor: Supervisor, layout: Layout
) -> None:
    oldest, _ = vm(supervisor, layout, "oldest")
    oldest.install(values(), "ada")
    good, _ = vm(supervisor, layout, "good")
    good.upgrade()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Vm(Interrupting(supervisor, "+ wait for API"), layout, build=small("killed", GOOD)).upgrade()
    broken, _ = vm(supervisor, layout, "broken", BAD)
    with pytest.raises(VmError, match="runs again"):
        broken.upgrade()
    assert answering(good) == "good"
    with pytest.raises(KeyboardInterrupt):
        Vm(Interrupting(supervisor, "+ wait for API"), layout, build=small("killed", GOOD)).upgrade()
    good.rollback()
    assert answering(good) == "good"
    good.rollback()
    assert answering(good) == "oldest"


class Interrupting(SupervisedMachine):
    """Machine on which a command is interrupted at one of its steps."""

    def __init__(self, supervisor: Supervisor, at: str) -> None:
        super().__init__(supervisor)
        self._at = at

    def say(self, line: str) -> None:
        super().say(line)
        if line.startswith(self._at):
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", ["+ write", "+ link", "+ wait for API"])
def test_an_installation_that_was_interrupted_anywhere_is_completed_by_the_next(
    supervisor: Supervisor, layout: Layout, at: str
) -> None:
    wanted = values()
    with pytest.raises(KeyboardInterrupt):
        Vm(Interrupting(supervisor, at), layout, build=small("first", GOOD)).install(wanted, "ada")
    again, _ = vm(supervisor, layout, "again")
    again.install(wanted, "ada")
    assert answering(again) == "again"


def test_removal_keeps_settings_and_data_unless_told_otherwise(supervisor: Supervisor, layout: Layout) -> None:
    made, _ = vm(supervisor, layout, "first")
    made.install(values(), "ada")
    pids = [supervisor.pid(f"swissbrain-{part}.service") for part in PARTS]
    made.uninstall(purge=False)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert (layout.secrets.exists(), layout.valkey.is_dir(), layout.software.exists()) == (True, True, False)
    assert list(layout.units.iterdir()) == []
    made.uninstall(purge=True)
    assert (layout.settings.exists(), layout.state.exists()) == (False, False)


def test_everybody_can_read_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "checkout"
    for folder in (source / "units", source / "__pycache__"):
        folder.mkdir(parents=True, mode=0o700)
        (folder / "a.service").touch(0o600)
    Machine().copy(source, tmp_path / "copy")
    found = {str(path.relative_to(tmp_path / "copy")): path for path in (tmp_path / "copy").rglob("*")}
    assert set(found) == {"units", "units/a.service"}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in found.values())


def test_two_commands_do_not_change_a_machine_at_the_same_time(supervisor: Supervisor, layout: Layout) -> None:
    made, _ = vm(supervisor, layout, "first")
    with made.locked(), pytest.raises(UsageError, match="another command"):
        made.install(values(), "ada")
    assert not layout.settings.exists()


@pytest.mark.parametrize("command", ["upgrade", "backup", "restore", "rollback"])
def test_commands_need_an_installation(layout: Layout, command: str) -> None:
    made = Vm(Machine(), layout)
    arguments = {"backup": (None,), "restore": (None, None)}.get(command, ())
    with pytest.raises(UsageError, match=r"nothing is installed|no previous release"):
        getattr(made, command)(*arguments)
    assert not layout.root.exists()


def deploy(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with the standard library alone, as on a machine that has nothing but Python."""
    command = [sys.executable, "-S", "-m", "deploy.vm", *words]
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_a_dry_run_needs_only_python_and_prints_each_step_but_no_secret() -> None:
    keys = {"S3_ACCESS_KEY": "key-of-the-store", "S3_SECRET_KEY": "secret-of-the-store"}
    done = deploy("install", "--domain", "agents.example.ch", "--dry-run", **keys)
    assert (done.returncode, done.stderr) == (0, "")
    for step in ("+ write /etc/swissbrain/secrets.json", "venv", "+ systemctl restart swissbrain-api.service"):
        assert step in done.stdout
    assert not any(secret in done.stdout for secret in keys.values())
    assert not Path("/etc/swissbrain").exists()


def test_a_dry_run_on_a_terminal_asks_for_no_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert main(["install", "--domain", "agents.example.ch", "--dry-run"]) == 0
    assert "asked-for" not in capsys.readouterr().out


def test_folders_in_options_of_the_installed_command_are_relative_to_the_current_one(tmp_path: Path) -> None:
    (tmp_path / "venv").symlink_to(sys.prefix)
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    (tmp_path / "infra").symlink_to(ROOT / "infra")
    (tmp_path / "here" / "usb").mkdir(parents=True)
    (tmp_path / "here" / "argparse.py").write_text("raise SystemExit('a module of the caller')")
    command = ["sh", "-c", _command(tmp_path), "swissbrain-vm", "backup", "--dry-run", "--to"]
    for folder, message in (("usb", "nothing is installed here"), ("no", "'no' is no folder")):
        done = subprocess.run([*command, folder], cwd=tmp_path / "here", capture_output=True, text=True)
        assert message in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("install", "--domain", "https://agents.example.ch"), "is no domain such as"),
        (("install", "--domain", "agents.example.ch", "--user", "a b"), "is no user"),
        (("install", "--domain", "agents.example.ch"), "S3_ACCESS_KEY is not set"),
        (("install",), "S3_ACCESS_KEY is not set"),
        (("install", "--s3-endpoint-url", "sos-ch-gva-2.exo.io"), "S3_ENDPOINT_URL must be a URL such as"),
        (("install", "--s3-endpoint-url", "https://a:b@sos"), "S3_ENDPOINT_URL must be a URL such as"),
        (("install", "--s3-bucket", "my bucket"), "S3_BUCKET must be the name of a bucket, not 'my bucket'"),
        (("install", "--s3-region", "it's"), "S3_REGION contains a quote, a backslash or a control character"),
        (("backup", "--to", "/no/such/folder"), "is no folder"),
        (("backup", "--keep", "0"), "must be between 1 and 1000"),
        (("upgrade",), "nothing is installed here"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    with suppress(SystemExit):  # of argparse, for options
        assert main([*words, "--dry-run"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
