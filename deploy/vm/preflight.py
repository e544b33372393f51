"""Checks of the machine before anything is changed."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from deploy.vm.machine import UsageError

PROGRAMS = ("systemctl", "systemd-sysusers")
HOMES = ("/home", "/root", "/run/user")
SYSTEMD = 250
"""First version whose units can name the folder of credentials."""
FREE_BYTES = 3 * 1024**3
_PROC = Path("/proc/sys")


def check_root(folder: Path) -> None:
    """Raise UsageError unless the command may change an installation below the folder."""
    if folder == Path("/") and os.geteuid() != 0:
        raise UsageError("this must run as root: sudo")


def check_machine() -> None:
    """Raise UsageError with everything that this machine lacks for an installation."""
    if found := list(_problems()):
        raise UsageError("; ".join(found))


def _problems() -> Iterator[str]:
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}:
        yield "Linux on x86-64 or arm64 is needed"
    if any(Path(sys.base_prefix).resolve().is_relative_to(home) for home in HOMES):
        yield f"this Python is in {sys.base_prefix}, which services cannot read: use that of the system"
    if not find_spec("ensurepip"):
        yield "Python's module ensurepip is missing: apt-get install python3-venv"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        yield f"{', '.join(missing)} cannot be found: apt-get install systemd"
    elif (version := _systemd()) < SYSTEMD:
        yield f"systemd {SYSTEMD} or newer is needed, not {version}"
    elif not Path("/run/systemd/system").is_dir():
        yield "this machine was not started by systemd"
    if _number("user/max_user_namespaces", 1) == 0 or _number("kernel/unprivileged_userns_clone", 1) == 0:
        yield "user namespaces are switched off, which the sandbox needs: see the page on the sandbox, 'Requirements'"
    if shutil.disk_usage("/").free < FREE_BYTES:
        yield f"{FREE_BYTES >> 30} GiB of disk space must be free"


def _systemd() -> int:
    shown = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"systemd (\d+)", shown)
    return int(match[1]) if match else 0


def _number(name: str, default: int) -> int:
    try:
        return int((_PROC / name).read_text())
    except (OSError, ValueError):
        return default
