"""Stands between the worker and a program, so that nothing of the program outlives either of them.

Run as a script of its own, with the standard library alone: `guard.py LIFELINE LOCK MEMORY_BYTES COMMAND…`. It ends
once the last process of the program's tree has been reaped, which it brings about when the program ends, when the tree
holds more memory than allowed, or when the worker lets go of the lifeline, be it by closing it or by dying. LOCK is a
descriptor that stays open until then, and that the program does not inherit: see home.py.

Orphans become children of the guard (a subreaper) wherever they moved, to another session or process group. So killing
all children until there is none takes the whole tree, and there is no instant at which the death of the worker goes
unnoticed: bwrap's own `--die-with-parent` begins late, and a bwrap that loses its outer half before then never ends.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
TICK_MS = 200
PAUSE_S = 0.005
KILLED = 128 + signal.SIGKILL
NOT_FOUND = 127
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
COUNTS = 5


def main(lifeline: int, lock: int, memory_bytes: int, command: list[str]) -> int:
    """Run the command and answer its exit code, 128 + n if signal n ended it."""
    # Handlers, not SIG_IGN: the program must not inherit them.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for kept in (lifeline, lock):
        os.set_inheritable(kept, False)
    program = os.fork()
    if program == 0:
        execute(command)
    try:
        for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
            if fd > 2 and fd not in (lifeline, lock):
                with contextlib.suppress(OSError):  # that of the listing itself
                    os.close(fd)
        too_much = watch(lifeline, program, memory_bytes)
    finally:
        code = end_all(program)
    if too_much:
        with contextlib.suppress(OSError):
            os.write(2, f"\nkilled: the program held more than {memory_bytes // 1024**2} MB of memory\n".encode())
    return code


def execute(command: list[str]) -> None:
    """Become the command."""
    try:
        os.execv(command[0], command)  # noqa: S606
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(NOT_FOUND)


def watch(lifeline: int, program: int, memory_bytes: int) -> bool:
    """Wait for a reason to end it all; whether that is memory."""
    poll = select.poll()
    poll.register(lifeline, 0)  # its other end being closed is always told
    poll.register(os.pidfd_open(program), select.POLLIN)
    while not poll.poll(TICK_MS):
        if memory_bytes and holds_more(memory_bytes):
            return True
    return False


def end_all(program: int) -> int:
    """Kill and reap children, orphans that come to us included, until there is none; answers the program's code."""
    code = None
    while True:
        found = [pid for pid, (parent, _) in processes().items() if parent == os.getpid()]
        if not found and code is None:
            found = [program]  # it is ours until it is reaped, and without open files nobody can be looked at
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            pid, status = os.waitpid(-1, 0 if found else os.WNOHANG)
            while pid:
                if pid == program:
                    ended = os.waitstatus_to_exitcode(status)
                    code = 128 - ended if ended < 0 else ended
                pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return KILLED if code is None else code
        if not found:
            time.sleep(PAUSE_S)


def holds_more(memory_bytes: int) -> bool:
    """Whether the tree below us holds more memory than allowed; what its processes share counts once.

    A process that ends between two readings leaves its share to the others, which are then read to hold more than all
    of them ever did. So where it matters what is shared it takes several counts in a row to convict.
    """
    for _ in range(COUNTS):
        private, held = held_below(memory_bytes)
        if private > memory_bytes:
            return True
        if held <= memory_bytes:
            return False
        time.sleep(PAUSE_S)
    return True


def held_below(enough: int) -> tuple[int, int]:
    """The memory of all below us, that which is not shared and all; exact only if it might be more than `enough`."""
    table = processes()
    below = descendants(table)
    resident = sum(table[pid][1] for pid in below)  # counts too much, and costs little
    if resident <= enough:
        return 0, resident
    private = held = 0
    for pid in below:
        try:
            own, with_share = held_bytes(pid)
        except ProcessLookupError:
            continue
        except OSError:
            own, with_share = 0, table[pid][1]
        private += own
        held += with_share
    return private, held


def descendants(table: dict[int, tuple[int, int]]) -> set[int]:
    """All below us, near and far."""
    below = {os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in table.items() if parent in below} - below
        below |= more
        grown = bool(more)
    below.remove(os.getpid())
    return below


def held_bytes(pid: int) -> tuple[int, int]:
    """The memory of one process, alone and with its share of what it shares. Costs a walk over all of its pages."""
    private = held = 0
    with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith((b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")):
                held += int(line.split()[1]) * 1024
            elif line.startswith(b"Private_Dirty:"):
                private = int(line.split()[1]) * 1024
    return min(private, held), held  # what is dirty may be of a file


def processes() -> dict[int, tuple[int, int]]:
    """Parent and resident bytes of each process that can be looked at: none, while the host is short of open files."""
    found: dict[int, tuple[int, int]] = {}
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                fields = file.read().rpartition(b")")[2].split()
                found[int(name)] = (int(fields[1]), int(fields[21]) * PAGE_BYTES)
    return found


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
