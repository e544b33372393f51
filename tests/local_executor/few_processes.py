"""Executor of a user with few processes: `python -m tests.local_executor.few_processes SCRATCH` prints the outcomes."""

import asyncio
import json
import resource
import sys
from pathlib import Path

from infra.contract.errors import ContractError
from infra.local_executor import LocalExecutor
from infra.scratch_root import ScratchRoot
from tests.local_executor.rig import Bench

MAX_ATTEMPTS = 40


async def outcomes(root: Path) -> list[str]:
    """Return output or error of each attempt. Each attempt may use one process more, until one succeeds."""
    bench = Bench(LocalExecutor(ScratchRoot(root)), root)
    found: list[str] = []
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    while "fine\n" not in found and len(found) < MAX_ATTEMPTS:
        resource.setrlimit(resource.RLIMIT_NPROC, (1 + len(found), hard))
        try:
            found.append((await bench.run("echo fine")).out)
        except (OSError, ContractError) as exc:
            found.append(f"{type(exc).__name__}: {exc}")
    return found


if __name__ == "__main__":
    print(json.dumps({"outcomes": asyncio.run(outcomes(Path(sys.argv[1])))}))
