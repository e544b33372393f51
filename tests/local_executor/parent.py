"""A worker to be killed: executes programs until it is dead.

`python -m tests.local_executor.parent ROOT MARKER MODE COUNT`
"""

import asyncio
import sys
from pathlib import Path

from infra.local_executor import LocalExecutor
from tests.local_executor.rig import Bench

DAEMON = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
told, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv('/bin/sh', ['sh', '-c', 'sleep 3600; : MARKER'])
    os._exit(0)
os.close(tell)
os.read(told, 1)
print('up', flush=True)
time.sleep(3600)
"""
"""Goes on, and says `up` once it has a daemon in a session of its own, which ignores signals and holds the output."""


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
