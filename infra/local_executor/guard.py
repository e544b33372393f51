"""Guard process between the worker and one program: the program's processes never outlive the guard or the worker.

Runs as a script with the standard library alone:
`guard.py LIFELINE LOCK MEMORY_BYTES FILES FOLDER NAME DISK_BYTES ENTRIES COMMAND...`. Kills the program's process tree
when the program ends, when the tree uses more memory, files in memory or space in FOLDER, called NAME, than allowed, or
when the worker closes the lifeline (its death closes it too), and exits once the last process of the tree is reaped.
LOCK is the descriptor of the scratch folder's lock (see scratch_root.py): the guard keeps it open until it exits, the
program does not inherit it. A limit of 0, or an empty folder, is none.

The guard is a subreaper: orphans of the tree become its children, in whatever session or process group they are. So
killing children until no child remains kills the whole tree, and the death of the worker is noticed at any instant.
bwrap's own `--die-with-parent` takes effect too late for that, and a bwrap whose outer process dies earlier never ends.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False  # the module `typing` takes milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PR_SET_CHILD_SUBREAPER = 36
TICK_MS = 200
LONGEST_PAUSE_S = 0.6
GROWTH_BYTES_S = 4 * 1024**3
"""Rate at which a program may take memory. A count reads a file for each process of the host, so the next one comes
when the program could have reached its limit at this rate, but not before the next tick."""
PAUSE_S = 0.005
DISK_EVERY_S = 1.0  # shortest time between two counts of files
NOT_FOUND, KILLED = 127, 128 + signal.SIGKILL  # exit codes as of a shell
OOM_SCORE = "800"  # if the host runs out of memory, the kernel must kill programs before it kills the worker
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
COUNTS = 5


def disk_excess(folder: str, max_bytes: int, max_entries: int, name: str = "") -> str:
    """Return how a folder exceeds its limits of bytes on the disk and of entries, or an empty text.

    A file with several names counts once, a deleted one that is open not at all. `name`: of the folder in the text.
    """
    size_bytes, counted = 0, set[int]()
    for count, found in enumerate(entries_below(folder), 1):
        size_bytes += 0 if found.st_ino in counted else found.st_blocks * 512
        counted.add(found.st_ino)
        if size_bytes > max_bytes:
            return f"stored more than its limit of {max_bytes // 1024**2} MB in {name or folder}"
        if count > max_entries:
            return f"created more than its limit of {max_entries} files in {name or folder}"
    return ""


class StorageLimits:
    """Limits of what a program stores: functions like `disk_excess`, called for at most a tenth of the time."""

    def __init__(self, limits: "Sequence[Callable[[], str]]") -> None:
        self._limits = limits
        self._next_s = time.monotonic() + DISK_EVERY_S

    def exceeded(self) -> str:
        """Return how the program exceeds one of the limits, if a count is due, or an empty text."""
        began_s = time.monotonic()
        if began_s < self._next_s:
            return ""
        exceeded = next(filter(None, (limit() for limit in self._limits)), "")
        self._next_s = time.monotonic() + max(DISK_EVERY_S, 10 * (time.monotonic() - began_s))
        return exceeded


def main(lifeline: int, lock: int, memory_bytes: int, files: int, storage: StorageLimits, command: list[str]) -> int:
    """Run the command and return its exit code, or 128 + n if signal n ended it."""
    # Signals to the whole service must not end the guard before its program. Handlers instead of SIG_IGN, because a
    # program inherits ignored signals, but not handlers.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    # An ignored SIGCHLD, which the worker may have inherited, would reap children and lose their exit codes.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for private in (lifeline, lock):
        os.set_inheritable(private, False)
    program = os.fork()
    if program == 0:
        execute(command)
    try:
        for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
            if fd > 2 and fd not in (lifeline, lock):
                with contextlib.suppress(OSError):  # the descriptor of the listing itself is already closed
                    os.close(fd)
        exceeded = watch(lifeline, program, memory_bytes, MemoryFiles(files), storage)
    finally:
        code = kill_tree(program)
    if exceeded:
        with contextlib.suppress(OSError):
            os.write(2, f"\nkilled: the program {exceeded}\n".encode())
    return code


def execute(command: list[str]) -> None:
    """Replace this process by the command."""
    # Here, because the sandbox has no `/proc` that it may write to. A process with CAP_SYS_RESOURCE makes it final.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write(OOM_SCORE)
    try:
        os.execv(command[0], command)  # noqa: S606
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(NOT_FOUND)


def watch(lifeline: int, program: int, memory_bytes: int, files: "MemoryFiles", storage: StorageLimits) -> str:
    """Wait until the tree must be killed; return which limit it exceeds, or an empty text."""
    poll = select.poll()
    poll.register(lifeline, 0)  # no events requested: POLLHUP is always reported
    poll.register(os.pidfd_open(program), select.POLLIN)
    memory = MemoryLimit(memory_bytes)
    while not poll.poll(TICK_MS):
        if memory.is_exceeded():
            return f"used more memory than its limit of {memory_bytes // 1024**2} MB"
        if files.exceed_limit():
            return f"created more than its limit of {files.limit} files in one of {', '.join(files.folders)}"
        if exceeded := storage.exceeded():
            return exceeded
    return ""


class MemoryLimit:
    """Limit for the memory of all descendants of this process; 0 is none."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._next_s = 0.0

    def is_exceeded(self) -> bool:
        """Count if a count is due; return True if the tree uses more memory than allowed."""
        if not self._limit_bytes or time.monotonic() < self._next_s:
            return False
        left = memory_left(self._limit_bytes)
        self._next_s = time.monotonic() + min(left / GROWTH_BYTES_S, LONGEST_PAUSE_S)
        return left < 0


class MemoryFiles:
    """Count of the files in the sandbox's file systems in memory.

    Each file, even an empty one, takes about 1 KB of the kernel's memory, which belongs to no process. bwrap limits the
    size of the content, but not the number of files.
    """

    folders = ("/tmp", "/dev/shm")  # noqa: S108

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._fds: list[int] = []

    def exceed_limit(self) -> bool:
        """Return True if one of the folders holds more files than allowed."""
        if self.limit and not self._fds:
            self._fds = self._open_folders()
        counts = [os.fstatvfs(fd) for fd in self._fds]
        return any(count.f_files - count.f_ffree > self.limit for count in counts)

    def _open_folders(self) -> list[int]:
        """Open the folders through a process of the sandbox; empty until the sandbox is set up."""
        own = os.stat("/")  # noqa: PTH116
        for pid in descendants(processes()):
            opened: list[int] = []
            # Before bwrap has set up the sandbox, its processes have the root of the host, or one without the folders.
            # Some processes may not be looked into, depending on their user.
            with contextlib.suppress(OSError):
                if not os.path.samestat(os.stat(f"/proc/{pid}/root"), own):  # noqa: PTH116
                    paths = [f"/proc/{pid}/root{folder}" for folder in self.folders]
                    opened.extend(os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths)
                    return opened
            for fd in opened:
                os.close(fd)
        return []


def entries_below(folder: str) -> "Iterator[os.stat_result]":
    """Yield the stat of every entry below a folder, without following links, while programs change it."""
    folders = [folder]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)


def kill_tree(program: int) -> int:
    """Kill and reap children, adopted orphans included, until no child remains; return the program's exit code."""
    code = None
    while True:
        children = [pid for pid, (parent, _) in processes().items() if parent == os.getpid()]
        if not children and code is None:
            # Without free descriptors /proc cannot be read. The program's pid is still valid, because it has not been
            # reaped yet.
            children = [program]
        for pid in children:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            pid, status = os.waitpid(-1, 0 if children else os.WNOHANG)
            while pid:
                if pid == program:
                    program_status = os.waitstatus_to_exitcode(status)
                    code = 128 - program_status if program_status < 0 else program_status
                pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return KILLED if code is None else code
        if not children:
            time.sleep(PAUSE_S)


def memory_left(memory_bytes: int) -> int:
    """Return the bytes that the tree may still use, below 0 if it exceeds its limit.

    Memory that its processes share counts once.
    """
    left = 0
    for _ in range(COUNTS):
        private, total = tree_memory(memory_bytes)
        left = memory_bytes - total
        if private > memory_bytes or left >= 0:
            break
        # A process that ends between two readings passes its share of shared memory to the other processes, so one
        # count can exceed the true total. Only several counts in a row prove an excess of shared memory.
        time.sleep(PAUSE_S)
    return left


def tree_memory(threshold: int) -> tuple[int, int]:
    """Return private and total bytes of all descendants; exact only if the total may exceed `threshold`."""
    table = processes()
    pids = descendants(table)
    # The sum of resident sizes counts shared memory repeatedly, so it is an upper bound, and it is cheap.
    resident = sum(table[pid][1] for pid in pids)
    if resident <= threshold:
        return 0, resident
    private = total = 0
    for pid in pids:
        try:
            own, with_share = process_memory(pid)
        except ProcessLookupError:
            continue
        except OSError:
            own, with_share = 0, table[pid][1]
        private += own
        total += with_share
    return private, total


def descendants(table: dict[int, tuple[int, int]]) -> set[int]:
    """Return the pids of all descendants of this process."""
    found = {os.getpid()}
    while more := {pid for pid, (parent, _) in table.items() if parent in found} - found:
        found |= more
    found.remove(os.getpid())
    return found


def process_memory(pid: int) -> tuple[int, int]:
    """Return a process's private bytes, and these with its share of shared memory. The kernel walks all its pages."""
    private = total = 0
    with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith((b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")):
                total += int(line.split()[1]) * 1024
            elif line.startswith(b"Private_Dirty:"):
                private = int(line.split()[1]) * 1024
    return min(private, total), total  # dirty pages may belong to mapped files, which `total` does not count


def processes() -> dict[int, tuple[int, int]]:
    """Return parent and resident bytes of each visible process; empty if no descriptor is free to read /proc."""
    found: dict[int, tuple[int, int]] = {}
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
            with contextlib.suppress(OSError):
                # Half the time of a file object, which matters for a thing done for each process of the host.
                fd = os.open(f"/proc/{name}/stat", os.O_RDONLY)
                try:
                    fields = os.read(fd, PAGE_BYTES).rpartition(b")")[2].split(None, 22)
                finally:
                    os.close(fd)
                found[int(name)] = (int(fields[1]), int(fields[21]) * PAGE_BYTES)
    return found


if __name__ == "__main__":
    lifeline, lock, memory_bytes, files = map(int, sys.argv[1:5])
    folder, name, size_bytes, entries = sys.argv[5], sys.argv[6], *map(int, sys.argv[7:9])
    storage = StorageLimits([lambda: disk_excess(folder, size_bytes, entries, name)] if folder else [])
    sys.exit(main(lifeline, lock, memory_bytes, files, storage, sys.argv[9:]))
