"""Wheels of both distributions, built from this checkout."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
SOURCES = ("swissbrain", "edge_api", "worker", "infra", "distributions")
FILES = ("pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True)
class Wheels:
    """Wheel files of the two distributions."""

    client: Path
    server: Path


def pip(*words: str | Path) -> None:
    """Run pip. Raises CalledProcessError, after pip has printed why."""
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, words)], check=True
    )


def build(folder: Path) -> Wheels:
    """Build both wheels into a folder, without a registry."""
    generated = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    with TemporaryDirectory() as temporary:  # setuptools leaves folders in the sources
        copy = Path(temporary)
        for name in SOURCES:
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=generated)
        for name in FILES:
            shutil.copy(ROOT / name, copy / name)
        options = ("--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder)
        pip("wheel", *options, copy, copy / "distributions" / "server")
    (client,), (server,) = folder.glob("swissbrain-*.whl"), folder.glob("swissbrain_server-*.whl")
    return Wheels(client, server)
