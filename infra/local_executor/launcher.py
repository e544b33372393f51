"""First process inside the sandbox: sets limits, drops root if root built the sandbox, then becomes the program.

The source text is passed to `python -c` and uses the standard library alone. Arguments:
`READY UID PROCESSES MEMORY_BYTES FILE_BYTES CPU_S COMMAND…`; 0 leaves a limit or the uid unchanged. Writes a byte to
the descriptor READY once the sandbox is set up. Limits data, not address space, because node and browsers reserve far
more addresses than they use.
"""

import contextlib
import os
import resource
import sys

OPEN_FILES = 1024
OOM_SCORE = "800"


def main(ready: int, uid: int, numbers: list[int], command: list[str]) -> None:
    """Replace this process by the command. `numbers` are the four limits in the order of the arguments."""
    # If the host runs out of memory, the kernel must kill programs before it kills the worker.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write(OOM_SCORE)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
    names = (resource.RLIMIT_NPROC, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU)
    limits = [*zip(names, numbers, strict=True), (resource.RLIMIT_NOFILE, OPEN_FILES)]
    for name, limit in limits:
        if limit:
            hard = resource.getrlimit(name)[1]
            lowest = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(name, (lowest, lowest))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Drop the uid last: the limits above may need root to be set.
    if uid:
        os.setresuid(uid, uid, uid)
    os.chdir(os.environ["HOME"])
    os.nice(5)
    os.write(ready, b"1")
    os.close(ready)
    try:
        os.execv(command[0], command)  # noqa: S606
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), list(map(int, sys.argv[3:7])), sys.argv[7:])
