"""Container images: `python -m scripts.images --base BASE` builds them from `k8s/images`, with buildah or podman.

The context of all builds is `build/images`: wheels of this checkout, pip, pinned versions, and the scripts of the
build stages. With `--context-only`, any other builder can use it.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from scripts import wheels

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "k8s" / "images"
CONTEXT = ROOT / "build" / "images"
NAMES = ("worker", "api", "tools", "tools-browser")
BUILDERS = ("buildah", "podman")
_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_LOCAL = re.compile(r"localhost/[^\s@]+")
"""Image that was built here and never pushed, and so has no digest in a registry yet."""


class ImageError(Exception):
    """The images cannot be built. The message is one line for users."""


@dataclass(frozen=True)
class Source:
    """Version and commit of this checkout. `committed_s` is the time of the commit in seconds since 1970."""

    version: str
    revision: str
    committed_s: int

    @property
    def created(self) -> str:
        """Time of the commit as the label has it: the same commit makes the same label."""
        return datetime.fromtimestamp(self.committed_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def source() -> Source:
    """Return version and commit of this checkout. Raises ImageError outside of a clone."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        number = tomllib.load(file)["project"]["version"]
    try:
        commit, committed = _git("log", "-1", "--format=%H %ct").split()
        changed = "-changed" if _git("status", "--porcelain") else ""
    except (OSError, subprocess.CalledProcessError) as error:
        raise ImageError("images are built from a clone with its history: git tells their revision") from error
    return Source(number, commit + changed, int(committed))


def prepare(folder: Path) -> wheels.Wheels:
    """Write the context into an empty folder, except for the wheel of pip; return the wheels of this checkout."""
    folder.mkdir(parents=True)
    for file in [*SOURCES.glob("*.sh"), *SOURCES.glob("*.py"), ROOT / "constraints.txt"]:
        shutil.copy(file, folder)
    return wheels.build(folder)


def checked_base(base: str) -> str:
    """Return the name of a base image that cannot change. Raises ImageError."""
    if not _DIGEST.fullmatch(base) and not _LOCAL.fullmatch(base):
        raise ImageError(f"BASE must be NAME@sha256:DIGEST, or localhost/NAME for an image built here, not {base!r}")
    return base


def build_command(builder: str, name: str, base: str, tag: str, made_from: Source, context: Path) -> list[str]:
    """Return the command that builds an image from a context. It is the same for buildah and podman."""
    arguments = {
        "BASE": base,
        "VERSION": made_from.version,
        "REVISION": made_from.revision,
        "CREATED": made_from.created,
    }
    words = [builder, "build", "--layers=false", f"--timestamp={made_from.committed_s}", "--format=oci"]
    words += [f"--build-arg={key}={value}" for key, value in arguments.items()]
    return [*words, f"--file={SOURCES / name}.Containerfile", f"--tag={tag}", str(context)]


def main() -> int:
    """Build images; return the exit code."""
    options = _options()
    try:
        made_from, base = source(), "" if options.context_only else checked_base(options.base)
        builder = next(filter(shutil.which, BUILDERS), "")
        if not builder and not options.context_only:
            raise ImageError(f"images are built by {' or '.join(BUILDERS)}, neither of which is installed")
        shutil.rmtree(CONTEXT, ignore_errors=True)
        prepare(CONTEXT)
        wheels.pip("download", "--no-deps", "--dest", CONTEXT, f"pip=={version('pip')}")
        for name in [] if options.context_only else options.name or NAMES:
            # The browser is added to the tools of the same build.
            below = _tag("tools", options.tag) if name == "tools-browser" else base
            command = build_command(builder, name, below, _tag(name, options.tag), made_from, CONTEXT)
            secret = [f"--secret=id=pip.conf,src={options.pip_conf}"] if options.pip_conf else []
            subprocess.run([*command[:2], *secret, *command[2:]], check=True)
    except ImageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{error.cmd[0]} failed; its messages are above\n")
        return 1
    return 0


def _tag(name: str, tag: str) -> str:
    return f"localhost/swissbrain-{name}:{tag}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.images", description=__doc__)
    parser.add_argument(
        "name", nargs="*", choices=[[], *NAMES], metavar="NAME", help=f"{', '.join(NAMES)}; default: all"
    )
    parser.add_argument("--base", default="", help="Debian image, as NAME@sha256:DIGEST")
    parser.add_argument("--tag", default="latest", help="tag of the images")
    parser.add_argument("--pip-conf", type=Path, help="pip's configuration for the builds, such as another registry")
    parser.add_argument("--context-only", action="store_true", help="write build/images and build nothing")
    return parser.parse_args()


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
