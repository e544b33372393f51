"""Files of the images, and the command that builds them; nothing is built here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.k8s_executor import job
from infra.local_executor import machine
from infra.pod_runner.__main__ import WORKSPACE
from scripts import images
from scripts.images import NAMES, ROOT, SOURCES, ImageError, Source, build_command, checked_base

DIGEST = f"sha256:{'0' * 64}"
FILES = [SOURCES / f"{name}.Containerfile" for name in NAMES]


def test_every_file_is_an_image_and_passes_the_linter() -> None:
    assert {*SOURCES.glob("*.Containerfile")} == {*FILES}
    words = [Path(sys.executable).with_name("hadolint"), *FILES]
    linted = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, ""), linted.stdout


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_no_file_names_a_base_a_registry_or_a_secret(file: Path) -> None:
    text = file.read_text()
    arguments = re.findall(r"^ARG (.+)$", text, re.MULTILINE)
    assert {*arguments} == {"BASE", "VERSION", "REVISION", "CREATED"}  # none has a default
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert not re.search(r"://|@sha256:|\.(com|io|org)\b(?!\.opencontainers)", text.replace("org.opencontainers", ""))


def test_uids_of_pods_have_the_user_of_the_sandbox(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SOURCES / "users.py", tmp_path], check=True)
    for name, last in (("passwd", f":user:{WORKSPACE}:/bin/bash"), ("group", "")):
        lines = (tmp_path / name).read_text().splitlines()
        assert len(lines) == job.UIDS
        made = machine.etc_files(job.FIRST_UID, job.FIRST_UID, str(WORKSPACE))[name].splitlines()
        assert lines[0] in made
        uid = job.FIRST_UID + job.UIDS - 1
        assert lines[-1] == f"user:x:{uid}:{uid if name == 'passwd' else ''}{last}"


def test_the_page_lists_the_packages_of_the_tools() -> None:
    called = re.search(r"packages\.sh (bash .+?) &&", (SOURCES / "tools.Containerfile").read_text(), re.DOTALL)
    listed = re.search(r"^`bash`, .+?`$\n\n", (ROOT / "docs" / "images.md").read_text(), re.DOTALL | re.MULTILINE)
    assert called
    assert listed
    assert re.findall(r"`(.+?)`", listed[0]) == called[1].replace("\\", "").split()


@pytest.mark.parametrize("base", [f"debian@{DIGEST}", f"registry.example/debian:12@{DIGEST}", "localhost/base:latest"])
def test_a_base_has_a_digest_or_was_built_here(base: str) -> None:
    assert checked_base(base) == base


@pytest.mark.parametrize("base", ["", "debian", "debian:12", "debian:12-slim", "registry.example/debian@sha256:0"])
def test_a_base_that_can_change_is_refused(base: str) -> None:
    with pytest.raises(ImageError, match="BASE must be NAME@sha256:DIGEST"):
        checked_base(base)


def test_the_command_tells_a_bad_base_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["images", "--base", "debian:12"])
    assert images.main() == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_builds_get_everything_by_arguments() -> None:
    source = Source("1.2.3", "abc", 1_700_000_000)
    command = build_command("podman", "api", f"debian@{DIGEST}", "api:1", source, Path("/context"))
    assert command == [
        "podman",
        "build",
        "--layers=false",
        "--timestamp=1700000000",
        "--format=oci",
        f"--build-arg=BASE=debian@{DIGEST}",
        "--build-arg=VERSION=1.2.3",
        "--build-arg=REVISION=abc",
        "--build-arg=CREATED=2023-11-14T22:13:20Z",
        f"--file={SOURCES}/api.Containerfile",
        "--tag=api:1",
        "/context",
    ]
