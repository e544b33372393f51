"""The benchmark `peers` on machines that cannot run it, and the versions that it pins."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import npm

ROOT = Path(__file__).parents[2]
OLD, CURRENT = "v18.20.4", "v22.12.0"


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def bench(path: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m bench` with programs of this folder only."""
    command = [sys.executable, "-m", "bench", *names]
    environment = {**os.environ, "PATH": str(path)}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_without_node_and_npm_one_line_says_so(tmp_path: Path) -> None:
    ended = bench(tmp_path, "peers")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "benchmark 'peers' needs node 20.19 or newer and npm; not found: node, npm\n"


def test_without_npm_one_line_says_so(tmp_path: Path) -> None:
    program(tmp_path, "node", f"echo {CURRENT}")
    ended = bench(tmp_path, "peers")
    assert ended.returncode == 2
    assert ended.stderr.endswith("not found: npm\n")


def test_an_unknown_name_is_refused_with_the_names_that_exist(tmp_path: Path) -> None:
    ended = bench(tmp_path, "peer")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "peers" in ended.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the only programs that are found. Packages are installed into `packages` below it."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(npm, "ROOT", tmp_path)
    monkeypatch.setattr(npm, "FOLDER", tmp_path / "packages")
    program(tmp_path, "node", f"echo {CURRENT}")
    return tmp_path


async def test_an_old_node_is_refused(folder: Path) -> None:
    program(folder, "node", f"echo {OLD}")
    program(folder, "npm", "exit 1")
    with pytest.raises(npm.Unavailable, match=r"needs node 20\.19 or newer; found: 18\.20\.4"):
        await npm.install()


async def test_a_failed_installation_says_why_and_is_tried_again(folder: Path) -> None:
    program(folder, "npm", "echo 'npm error code ENOTFOUND' >&2; echo 'npm error no network' >&2; exit 1")
    with pytest.raises(npm.Unavailable, match=r"^'npm ci' failed: code ENOTFOUND; no network$"):
        await npm.install()
    program(folder, "npm", "echo ci >> calls")
    assert await npm.install() == folder / "packages"
    assert (folder / "packages" / "calls").read_text() == "ci\n"


async def test_packages_are_installed_again_only_after_a_change_of_the_lock_file(folder: Path) -> None:
    program(folder, "npm", "echo ci >> calls")
    for _ in range(2):
        await npm.install()
    assert (folder / "packages" / "calls").read_text() == "ci\n"
    (folder / "packages" / "installed").write_text("an older lock file")
    await npm.install()
    assert (folder / "packages" / "calls").read_text() == "ci\nci\n"


def test_versions_are_exact_and_locked_without_addresses_of_a_registry() -> None:
    text = (npm.SOURCE / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in npm.versions()} == npm.versions()
    assert all("integrity" in package for path, package in packages.items() if path)
    assert "resolved" not in text
    assert "registry" not in text
