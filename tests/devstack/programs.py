"""Small real programs for tests of supervision."""

import sys
from pathlib import Path

from infra.devstack.processes import ProcessSpec
from infra.devstack.supervised_process import SupervisedProcess

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPER
LEAVES_CHILD = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True);" + SLEEPER
BROKEN = "import sys; sys.exit('the disk is made of cheese')"
READY_ONCE = """
import os, sys, time
if os.path.exists("seen"):
    time.sleep(600)
open("seen", "w").close()
print("up", flush=True)
time.sleep(1)
sys.exit("the cheese is gone")
"""
NEVER_READY = "import time; time.sleep(600)"


def supervised(
    folder: Path, source: str, *, stop_timeout_s: float = 5.0, start_timeout_s: float = 60.0
) -> SupervisedProcess:
    """Return a Python program named `thing` that is ready once it has printed `up`."""
    spec = ProcessSpec(
        name="thing",
        command=(sys.executable, "-c", source),
        environment={},
        folder=folder,
        stop_timeout_s=stop_timeout_s,
        start_timeout_s=start_timeout_s,
    )
    log = folder / "thing.log"
    return SupervisedProcess(spec, log, lambda begin: b"up" in log.read_bytes()[begin:])
