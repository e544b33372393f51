"""Small real programs to supervise, and looks at processes."""

import sys
from pathlib import Path

from infra.devstack.process import Child
from infra.devstack.processes import Part

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPER
LEAVES_ONE_BEHIND = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True);" + SLEEPER
BROKEN = "import sys; sys.exit('the disk is made of cheese')"


def child(folder: Path, source: str, *, stop_timeout_s: float = 5.0, start_timeout_s: float = 10.0) -> Child:
    """A python program that is ready once it has printed `up`."""
    part = Part(
        name="thing",
        command=(sys.executable, "-c", source),
        environment={},
        folder=folder,
        stop_timeout_s=stop_timeout_s,
        start_timeout_s=start_timeout_s,
    )
    log = folder / "thing.log"
    return Child(part, log, lambda begin: b"up" in log.read_bytes()[begin:])


def is_alive(pid: int) -> bool:
    """Whether the process lives; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
