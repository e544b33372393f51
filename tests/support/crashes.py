"""Plugin of pytest: how a worker process of pytest-xdist has died, which xdist itself does not tell.

Prints the signal or exit code, the tracebacks that the process wrote in its last moment (after a segmentation fault or
a SIGTERM; nothing can be written after a SIGKILL), and how many processes the kernel has killed for lack of memory.
"""

import faulthandler
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

WAIT_S = 10.0
TRACEBACKS = "tracebacks"
FOLDER = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
KILLS = pytest.StashKey[int | None]()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """In a worker, replace the file of tracebacks that pytest has set, which is the standard error of all workers."""
    if path := getattr(config, "workerinput", {}).get(TRACEBACKS):
        file = Path(path).open("w")  # noqa: SIM115 - open until the process ends
        faulthandler.enable(file)
        faulthandler.register(signal.SIGTERM, file, chain=True)
    else:
        config.stash[KILLS] = out_of_memory_kills()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a worker its file of tracebacks."""
    stash = node.config.stash
    if FOLDER not in stash:
        stash[FOLDER] = tempfile.TemporaryDirectory(prefix="tracebacks-")
        node.config.add_cleanup(stash[FOLDER].cleanup)
    node.workerinput[TRACEBACKS] = str(Path(stash[FOLDER].name) / node.gateway.id)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    """Print how a worker has ended, unless that was the end of the run."""
    if error is None:
        return
    text = Path(node.workerinput[TRACEBACKS])
    killed, before = out_of_memory_kills(), node.config.stash[KILLS]
    reporter = node.config.pluginmanager.get_plugin("terminalreporter")
    reporter.ensure_newline()
    reporter.write_line(f"worker {node.gateway.id} {end_of(node.gateway._io.popen)}", red=True)
    if killed is not None and before is not None:
        reporter.write_line(f"processes killed for lack of memory on this host during the run: {killed - before}")
    reporter.write_line((text.read_text() if text.exists() else "") or "it has written no traceback")


def end_of(process: "subprocess.Popen[bytes]") -> str:
    """Return a phrase with the exit code or signal of a process that has ended or is about to end."""
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(WAIT_S)
        return f"exited with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    return "closed its connection and is still running"


def out_of_memory_kills() -> int | None:
    """Return the number of processes that the kernel has killed for lack of memory since its start, if it says so."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
