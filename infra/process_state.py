"""State of a server process: what it inherits from its parent, and the objects of its start."""

import gc
import os
import signal
import sys
from contextlib import suppress

_KEPT = {signal.SIGKILL, signal.SIGSTOP, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ}
"""Not reset: `nohup` ignores SIGHUP on purpose, and Python ignores the last two itself, to raise errors instead."""


def reset_inherited_state() -> None:
    """Open closed standard descriptors, unblock all signals, and handle ignored ones as by default.

    A server calls this first. Otherwise sockets and files get the numbers 0 to 2, and the exit codes of children are
    lost, because a parent that ignores SIGCHLD passes this on. Of the umask only the owner's bits are reset, since the
    others may be stricter on purpose. Under a locale that is not UTF-8 the process starts again in Python's UTF-8 mode:
    it could not name all files.
    """
    _open_standard_descriptors()
    # With `python -I` the variable has no effect, and the process would start again for ever.
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606
    os.umask(os.umask(0) & 0o077)
    for number in signal.valid_signals() - _KEPT:
        if signal.getsignal(number) == signal.SIG_IGN:
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def exempt_startup_objects() -> None:
    """Exempt the objects that exist now from garbage collection. A server calls this when it begins to serve.

    A hundred thousand objects of modules and classes live as long as the process. To examine them takes 25 ms and more,
    in which every request waits.
    """
    gc.collect()
    gc.freeze()


def _open_standard_descriptors() -> None:
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            os.set_inheritable(fd, True)
    # Python leaves out the stream of a descriptor that was closed when it started.
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
