"""Services: units of a release, their order at a restart, and whether they work."""

import http.client
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from deploy.vm.layout import PARTS, Layout
from deploy.vm.machine import Machine, VmError
from deploy.vm.settings_files import Settings

TARGET = "swissbrain.target"
PATIENCE_S = 60.0
_PAUSE_S = 0.2


class Services:
    """Services of an installation. Methods raise VmError and OSError."""

    def __init__(self, layout: Layout, machine: Machine) -> None:
        self._layout = layout
        self._machine = machine

    def install(self, release: Path) -> None:
        """Install units, users and command of a release. No process is started or stopped."""
        source, machine = release / "deploy" / "vm", self._machine
        folder = Path(__file__).parent if machine.dry_run else source
        units = {path.name: path.read_text() for path in sorted((folder / "units").iterdir())}
        for name, text in units.items():
            machine.write(self._layout.units / name, text)
        for old in sorted(self._layout.units.glob("swissbrain*.*")):
            if old.name not in units:
                machine.remove(old)
        machine.write(self._layout.sysusers, (folder / "sysusers.conf").read_text())
        machine.write(self._layout.sysctl, (folder / "sysctl.conf").read_text())
        machine.write(self._layout.command, _command(self._layout.current), 0o755)
        machine.link(self._layout.current, release)
        machine.run(["systemd-sysusers", self._layout.sysusers])
        machine.run(["systemctl", "daemon-reload"])
        machine.run(["systemctl", "restart", "systemd-sysctl.service"])

    def restart(self) -> None:
        """Restart everything: the worker drains first, and takes runs again before the API takes new ones."""
        self._machine.run(["systemctl", "enable", "--quiet", TARGET])
        self._machine.run(["systemctl", "stop", "swissbrain-worker.service"])
        for part in PARTS:
            self._machine.run(["systemctl", "restart", f"swissbrain-{part}.service"])
        self._machine.run(["systemctl", "restart", "--no-block", "swissbrain-recovery.service"])
        self._machine.run(["systemctl", "start", TARGET])

    def stop(self) -> None:
        """Stop everything; the worker drains."""
        self._machine.run(["systemctl", "stop", "swissbrain-worker.service"])
        self._machine.run(["systemctl", "stop", TARGET, *(f"swissbrain-{part}.service" for part in PARTS)])
        self._machine.run(["systemctl", "stop", "swissbrain-sweep.service"])

    def check(self, settings: Settings) -> None:
        """Wait until API and worker are ready, then make a real run."""
        self._machine.say("+ wait for API and worker")
        if self._machine.dry_run:
            return
        ports, variables = settings.ports(), settings.verification()
        self._wait("the API is not ready", lambda: _get(ports.api, "/ready"))
        self._wait("the worker is not fit", lambda: _get(ports.worker_health, "/health"))
        verify = self._layout.current / "venv" / "bin" / "swissbrain"
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        self._machine.run([verify, "verify"], env={**kept, "PYTHONUTF8": "1", "HOME": "/", **variables}, show=True)

    def _wait(self, failure: str, ask: Callable[[], str]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while problem := ask():
            if time.monotonic() > deadline:
                raise VmError(f"{failure} after {PATIENCE_S:g} s: {problem}; see journalctl -u 'swissbrain-*'")
            time.sleep(_PAUSE_S)

    def remove(self) -> None:
        """Stop everything and remove the units, the list of users and the command. The users stay."""
        if (self._layout.units / TARGET).exists():
            self._machine.run(["systemctl", "disable", "--quiet", "--now", TARGET])
            self.stop()
        for path in sorted(self._layout.units.glob("swissbrain*.*")):
            self._machine.remove(path)
        for path in (self._layout.sysusers, self._layout.sysctl, self._layout.command):
            self._machine.remove(path)
        self._machine.run(["systemctl", "daemon-reload"])


def _command(current: Path) -> str:
    # env and -P: neither variables nor the current folder of the caller name modules. That folder stays: options name
    # others relative to it.
    python = f"PYTHONPATH={current} {current}/venv/bin/python -P -m deploy.vm"
    return f'#!/bin/sh\nexec env -i PATH="$PATH" TERM="$TERM" {python} "$@"\n'


def _get(port: int, path: str) -> str:
    """Ask a part whether it works; return an empty text, or what is wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({type(error).__name__})"
    except ValueError:
        return "an answer that is no JSON: another program has the port"
    finally:
        connection.close()
    if answer.status == http.client.OK and body.get("status") != "unfit":
        return ""
    return str(body.get("problem") or body.get("detail") or body.get("status"))[:300]
