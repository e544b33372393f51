"""Wheels of both distributions, and projects of users in which they are installed."""

import os
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.wheels import Wheels, build, pip

ROOT = Path(__file__).parents[2]
OWN = ("swissbrain", "__editable__", "_swissbrain")
MODULES = {"infra.py": "NAME = 'infra of the project'\n", "worker.py": "raise SystemExit('worker of the project')\n"}


@dataclass(frozen=True)
class Project:
    """Project of a user: a folder with modules named as server packages, and a virtual environment."""

    folder: Path
    environment: Path

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the project's folder."""
        command = [str(self.environment / "bin" / program), *words]
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("SWISSBRAIN_", "PYTHON"))}
        return subprocess.run(
            command, cwd=self.folder, env=bare, capture_output=True, text=True, timeout=100, check=False
        )


@pytest.fixture(scope="package")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """Build both wheels."""
    return build(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="package")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Link everything installed for these tests into a folder, except for both distributions."""
    folder = tmp_path_factory.mktemp("dependencies")
    for scheme in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(scheme).iterdir():
            if not entry.name.startswith(OWN) and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def project(tmp_path: Path, dependencies: Path) -> Project:
    """Create a project and an environment that has the dependencies of both distributions, but neither of them."""
    return new_project(tmp_path, dependencies)


@pytest.fixture(scope="package")
def full_project(tmp_path_factory: pytest.TempPathFactory, dependencies: Path, wheels: Wheels) -> Project:
    """Create a project whose environment has both distributions. Tests only read it."""
    made = new_project(tmp_path_factory.mktemp("full"), dependencies)
    install(made, wheels.client, wheels.server)
    return made


def new_project(folder: Path, dependencies: Path) -> Project:
    """Create a project in a folder, and its environment with the dependencies."""
    made = Project(folder / "project", folder / "environment")
    made.folder.mkdir()
    for name, content in MODULES.items():
        (made.folder / name).write_text(content)
    venv.create(made.environment, symlinks=True, with_pip=False)
    (site_packages,) = made.environment.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(f"{dependencies}\n")
    return made


def install(project: Project, *wheels: Path) -> None:
    """Install wheels into the environment of a project."""
    pip("--python", project.python, "install", "--no-deps", "--no-index", *wheels)
