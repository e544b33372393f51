"""A program of its own: `python bound.py PARENT COMMAND…` becomes COMMAND, which the kernel kills when PARENT dies.

An own program rather than code between fork and exec, which is not safe in a process that has threads. Linux only;
elsewhere a child outlives a parent that is killed with -9.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> str:
    """Returns only if the command could not be started: why."""
    parent, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(parent):
        return "the parent is gone already"
    try:
        os.execv(command[0], command)  # noqa: S606
    except OSError as exc:
        return f"cannot start {command[0]}: {exc.strerror}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
