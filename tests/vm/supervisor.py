"""Services from unit files, run as systemd runs them, as far as our units ask for it: this host has no systemd to ask.

Nothing is isolated here, and users are not switched. An environment begins empty, as under systemd.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from deploy.vm import env_files
from deploy.vm.layout import Layout
from deploy.vm.machine import Machine, VmError
from tests.vm.units import Unit, moved, parse

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600}
START_S = 60.0
LOOK_S = 0.02


class Supervisor:
    """Services of the units that are installed in a layout. `extra`: variables that a service gets in addition."""

    def __init__(self, layout: Layout, run: Path, extra: Mapping[str, Mapping[str, str]]) -> None:
        self._layout = layout
        self._run = run
        self.extra = extra
        self._units: dict[str, Unit] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._watch = threading.Thread(target=self._restart_ended, daemon=True)
        self._watch.start()

    def systemctl(self, words: Sequence[str]) -> None:
        """Do what `systemctl` does with these words. Raises VmError if it would fail."""
        verb, *rest = words
        names = [word for word in rest if not word.startswith("-")]
        if verb == "daemon-reload":
            units = self._layout.units.iterdir()
            self._units = {path.name: parse(path.name, path.read_text()) for path in units}
            return
        for name in names:
            if name == "systemd-sysctl.service":
                continue
            unit = self._units.get(name)
            if unit is None:
                raise VmError(f"Unit {name} not found.")
            if verb in {"stop", "restart"} or "--now" in rest:
                self.stop(name)
            if verb in {"start", "restart"} and not name.endswith(".timer"):
                self.start(name)

    def start(self, name: str) -> None:
        """Start a service, or what a target wants."""
        unit = self._units[name]
        if name.endswith(".target"):
            for each in unit.words("Wants", "Unit"):
                if each.endswith(".service") and not self.is_active(each):
                    self.start(each)
            return
        with self._lock:
            if not self.is_active(name):
                process = self._spawn(unit)
                self._processes[name] = process
        if unit.get("Type") == "oneshot":
            deadline = time.monotonic() + START_S
            while self._processes[name].wait(START_S):
                if unit.get("Restart") != "on-failure" or time.monotonic() > deadline:
                    raise VmError(f"{name} failed: {self.log(name)}")
                time.sleep(LOOK_S)
                self._processes[name] = self._spawn(unit)

    def stop(self, name: str) -> None:
        """Stop a service, or everything that is part of a target."""
        if name.endswith(".target"):
            for each, unit in self._units.items():
                if name in unit.words("PartOf", "Unit"):
                    self.stop(each)
            return
        with self._lock:
            process = self._processes.pop(name, None)
        if process is None:
            return
        unit = self._units[name]
        with suppress(ProcessLookupError):
            if unit.get("KillMode") == "mixed":
                process.send_signal(signal.SIGTERM)
            else:
                os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_seconds(unit.get("TimeoutStopSec", "90")))
        _kill_group(process)

    def is_active(self, name: str) -> bool:
        """Return whether the process of a service lives."""
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def pid(self, name: str) -> int:
        """Return the process id of a service."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """Kill the main process of a service, and nothing else."""
        self._processes[name].kill()
        self._processes[name].wait(20)

    def log(self, name: str) -> str:
        """Return the last lines that a service has written."""
        return (self._run / f"{name}.log").read_text(errors="replace")[-20_000:]

    def close(self) -> None:
        """Kill everything."""
        self._ending.set()
        self._watch.join()
        for process in self._processes.values():
            _kill_group(process)

    def _restart_ended(self) -> None:
        while not self._ending.wait(LOOK_S):
            with self._lock:
                for name, process in list(self._processes.items()):
                    if process.poll() is not None and self._units[name].get("Restart") == "always":
                        _kill_group(process)
                        time.sleep(LOOK_S)
                        self._processes[name] = self._spawn(self._units[name])

    def _spawn(self, unit: Unit) -> subprocess.Popen[bytes]:
        root = self._layout.root
        credentials = self._run / "credentials" / unit.name
        shutil.rmtree(credentials, ignore_errors=True)
        credentials.mkdir(parents=True)
        for name, path in unit.credentials.items():
            shutil.copy(moved(path, root), credentials / name)
        for folder in unit.words("StateDirectory"):
            (root / "var" / "lib" / folder).mkdir(mode=0o700, parents=True, exist_ok=True)

        def resolved(text: str) -> str:
            return moved(text.replace("%S", "/var/lib").replace("%d", str(credentials)), root)

        environment = {"PATH": PATH, "LANG": "C.UTF-8"}
        environment |= {name: resolved(value) for name, value in unit.environment.items()}
        for file in unit.files:
            source = self._layout.settings / file.removeprefix("-")
            if source.exists() or not file.startswith("-"):
                environment |= env_files.parse(source.read_text())
        environment |= self.extra.get(unit.name, {})
        (line,) = unit.all("ExecStart")
        words = shlex.split(re.sub(r"\$\{([A-Z_]+)\}", lambda match: environment[match[1]], resolved(line)))
        with (self._run / f"{unit.name}.log").open("ab") as log:
            return subprocess.Popen(
                words,
                env=environment,
                cwd=resolved(unit.get("WorkingDirectory", "/")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class SupervisedMachine(Machine):
    """Machine whose services a supervisor runs, and which makes no users."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__()
        self.supervisor = supervisor
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def run(self, words: Sequence[str | Path], *, env: Mapping[str, str] | None = None, show: bool = False) -> None:
        program, *rest = map(str, words)
        if program == "systemctl":
            self.say(f"+ {program} {' '.join(rest)}")
            self.supervisor.systemctl(rest)
        elif program != "systemd-sysusers":
            super().run(words, env=env, show=False)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)(s|min|h)?", text)
    assert match
    return int(match[1]) * SECONDS[match[2] or ""]
