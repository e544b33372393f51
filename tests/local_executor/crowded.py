"""Executor run by a user with few processes: `python -m tests.local_executor.crowded SCRATCH` prints the outcome."""

import asyncio
import json
import resource
import sys
from pathlib import Path

from infra.contract.errors import ContractError
from infra.local_executor import LocalExecutor
from tests.local_executor.rig import Bench

MOST = 40


async def outcomes(root: Path) -> list[str]:
    """What a program says, or why there was none, with one process more each time; until it could be run."""
    bench = Bench(LocalExecutor(root), root)
    found: list[str] = []
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    while "fine\n" not in found and len(found) < MOST:
        resource.setrlimit(resource.RLIMIT_NPROC, (1 + len(found), hard))
        try:
            found.append((await bench.run("echo fine")).out)
        except (OSError, ContractError) as exc:
            found.append(f"{type(exc).__name__}: {exc}")
    return found


if __name__ == "__main__":
    print(json.dumps({"outcomes": asyncio.run(outcomes(Path(sys.argv[1])))}))
