"""A worker to be killed: `python -m tests.executor.parent ROOT MARKER MODE COUNT` executes programs until it is dead."""

import asyncio
import sys
from pathlib import Path

from infra.local_executor import LocalExecutor
from tests.executor.rig import Bench

DAEMON = """
import os, signal, time
marker = 'MARKER'
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp('sh', ['sh', '-c', 'sleep 3600; : ' + marker])
    os._exit(0)
print('up', flush=True)
time.sleep(3600)
"""
"""Leaves a daemon in a session of its own, and goes on."""


async def main(root: str, marker: str, mode: str, count: str) -> None:
    """Say `up` for each program that is under way."""
    bench = Bench(LocalExecutor(Path(root), unsafe=mode == "unsafe"), Path(root), marker)

    def say(_: str, line: str) -> None:
        print(line, flush=True)

    print("begin", flush=True)
    await asyncio.gather(
        *(bench.run(DAEMON, "python", run_id=f"run-{number}", on_line=say) for number in range(int(count)))
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
