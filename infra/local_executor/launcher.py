"""First process inside the sandbox: sets limits, drops root if root built the sandbox, then becomes the program.

The source text is passed to `python -c` and uses the standard library alone. Arguments:
`READY NETWORK UID PROCESSES DATA_BYTES FILE_BYTES CPU_S FIFO TEXT COMMAND...`; 0 leaves a limit or the uid unchanged.
Writes a byte to the descriptor READY once the sandbox is set up. If NETWORK is not 0, it is the descriptor of a Unix
socket through which the worker gets a socket that listens in this network namespace. If FIFO is not empty, the command
reads the file TEXT from it (see interpreters.py). Limits data, not address space, because node and browsers reserve far
more addresses than they use.
"""

# The module `signal` makes enumerations of the same names, which takes milliseconds.
import _signal  # type: ignore[import-not-found]
import contextlib
import fcntl
import os
import resource
import sys

OPEN_FILES = 1024
STACK_BYTES = 8 * 1024 * 1024
"""Size of a stack, which is the usual one: of the first thread, and what the C library reserves for each other."""
CORE = 1
"""Bytes of a core dump: none is made. With 0 the kernel would start the program for dumps that the host may have."""
NICE = 5
OOM_SCORE = "800"
PROXY_PORT = 3128
BACKLOG = 128
PIPE_BYTES = 1024 * 1024
"""Capacity of the FIFO, so that the longest text fits and its writer ends at once."""


def main(ready: int, network: int, uid: int, numbers: list[int], fifo: str, text: str, command: list[str]) -> None:
    """Replace this process by the command. `numbers` are the four limits in the order of the arguments."""
    # If memory runs out, the kernel must kill programs before it kills the worker. A guard has already seen to that.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write(OOM_SCORE)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
    names = (resource.RLIMIT_NPROC, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU)
    limits = [*zip(names, numbers, strict=True), (resource.RLIMIT_NOFILE, OPEN_FILES), (resource.RLIMIT_CORE, CORE)]
    for name, limit in limits:
        if limit:
            lowest, _ = allowed(name, limit)
            resource.setrlimit(name, (lowest, lowest))
    for name in (resource.RLIMIT_NICE, resource.RLIMIT_RTPRIO):
        resource.setrlimit(name, (0, 0))
    resource.setrlimit(resource.RLIMIT_STACK, allowed(resource.RLIMIT_STACK, STACK_BYTES))
    # Drop the uid last: the limits above may need root to be set.
    if uid:
        os.setresuid(uid, uid, uid)
    if network:
        offer_proxy(network)
    os.chdir(os.environ["HOME"])
    # Whatever priority the worker was given, a program must not take the processor from other services of the host.
    if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    os.umask(0o022)  # permissions are stored with the files, and must not depend on who started the worker
    if fifo:
        offer(fifo, text)
    os.write(ready, b"1")
    os.close(ready)
    reset_signals()
    try:
        os.execv(command[0], command)  # noqa: S606
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


def allowed(name: int, wanted: int) -> tuple[int, int]:
    """Return the limit that is wanted, or the highest one that the worker allows, and the hard limit."""
    hard = resource.getrlimit(name)[1]
    return (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)), hard


def reset_signals() -> None:
    """Handle every signal as by default and block none: a program inherits what is ignored or blocked.

    Python itself ignores SIGPIPE and SIGXFSZ, and the worker's parent may have ignored or blocked others.
    """
    for number in _signal.valid_signals():
        with contextlib.suppress(OSError):  # two signals cannot be handled, and the C library keeps two for itself
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


def offer_proxy(channel: int) -> None:
    """Listen at the port of the proxy, and pass the listening socket to the worker, which alone keeps it open."""
    import _socket  # most programs have no network, and the module `socket` takes milliseconds

    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        listener.bind(("127.0.0.1", PROXY_PORT))
        listener.listen(BACKLOG)
        passing = _socket.socket(fileno=channel)
        fds = listener.fileno().to_bytes(4, sys.byteorder)
        passing.sendmsg([b"1"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
        passing.close()
        listener.close()
    except OSError as error:
        sys.exit(f"the proxy: {error.strerror}")


def offer(fifo: str, text: str) -> None:
    """Make the FIFO, and start a process that writes the file `text` into it and removes its name."""
    # The program must not get a child that it did not start, so the child leaves its own child to the init process.
    try:
        os.mkfifo(fifo, 0o600)
        child = os.fork()
        if child == 0 and os.fork():
            os._exit(0)
    except OSError as error:
        sys.exit(f"{fifo}: {error.strerror}")
    if child:
        if os.waitpid(child, 0)[1]:
            sys.exit(1)
        return
    with open(text, "rb") as file:  # noqa: PTH123
        content = file.read()
    writing = os.open(fifo, os.O_WRONLY)  # returns when the interpreter has opened the FIFO for reading
    os.unlink(fifo)  # noqa: PTH108
    with contextlib.suppress(OSError):
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    while content:
        content = content[os.write(writing, content) :]
    os._exit(0)


if __name__ == "__main__":
    ready, network, uid, *numbers = map(int, sys.argv[1:8])
    main(ready, network, uid, numbers, sys.argv[8], sys.argv[9], sys.argv[10:])
