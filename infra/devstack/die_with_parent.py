"""Script `die_with_parent.py PARENT COMMAND…`: becomes COMMAND, which the kernel kills when process PARENT dies.

A script instead of code between fork and exec, because such code is not safe in a process with threads. Linux only; on
other systems a child survives a SIGKILL of its parent.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> str:
    """Replace this process by the command; return an error message if it cannot be started."""
    parent, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # A parent that died before `prctl` sends no signal any more.
    if os.getppid() != int(parent):
        return "the parent process has already ended"
    try:
        os.execv(command[0], command)  # noqa: S606
    except OSError as exc:
        return f"cannot start {command[0]}: {exc.strerror}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
