"""Worker that tests kill: executes programs until it is dead.

`python -m tests.local_executor.worker_program ROOT MARKER MODE COUNT`
"""

import asyncio
import sys
from pathlib import Path

from infra.local_executor import LocalExecutor
from infra.scratch_root import ScratchRoot
from tests.local_executor.rig import DAEMON, Bench


async def main(root: str, marker: str, mode: str, count: str) -> None:
    """Print `begin`, start the programs concurrently, and print the `up` of each."""
    bench = Bench(LocalExecutor(ScratchRoot(Path(root)), unsafe=mode == "unsafe"), Path(root), marker)

    def forward(_: str, line: str) -> None:
        print(line, flush=True)

    print("begin", flush=True)
    await asyncio.gather(
        *(bench.run(DAEMON, "python", run_id=f"run-{number}", on_line=forward) for number in range(int(count)))
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
