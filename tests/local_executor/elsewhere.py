"""Executor run by another user: `python -m tests.local_executor.elsewhere SCRATCH` prints one line of JSON."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from infra.contract.errors import ExecutorUnavailable
from infra.contract.execution import ExecLimits
from infra.local_executor import LocalExecutor
from tests.local_executor.parent import DAEMON
from tests.local_executor.rig import MB, Bench, left_in

BOMB = """
import os, time
made = 0
try:
    while os.fork():
        made += 1
    time.sleep(60)
except OSError:
    print(made)
"""


async def report(root: Path) -> dict[str, Any]:
    """What works, or why nothing does."""
    bench = Bench(LocalExecutor(root), root)
    try:
        await bench.executor.check()
    except ExecutorUnavailable as exc:
        return {"refused": str(exc), "left": left_in(root)}
    told: dict[str, Any] = {"worker": os.geteuid()}
    ran = await bench.run("id -u; ls -a /root /etc/shadow /sys /home; pwd")
    told["out"] = ran.out
    told["written"] = (await bench.run("echo x > made; echo y > /usr/bin/made")).code
    told["made"] = (bench.files.seen / "made").read_text()
    told["namespaces"] = (await bench.run("unshare -Ur id -u")).out
    told["capabilities"] = (await bench.run("grep CapEff /proc/self/status")).out.split()[-1]
    hog = await bench.run("x = bytearray(2 * 1024 ** 3)", "python", limits=ExecLimits(memory_bytes=128 * MB))
    told["hog"] = hog.err.strip().splitlines()[-1]
    told["bomb"] = int((await bench.run(BOMB, "python", limits=ExecLimits(processes=32))).out)
    up = asyncio.Event()
    running = asyncio.ensure_future(bench.run(DAEMON, "python", on_line=lambda *_: up.set()))
    await asyncio.wait_for(up.wait(), 60)
    told["daemons"] = bool(bench.alive())
    running.cancel()
    await asyncio.wait({running})
    told["alive"] = len(bench.alive())
    await bench.run("mkdir -p a/b/c/d; touch a/b/c/d/e; chmod 0 a/b/c/d a/b/c a/b a; chmod 0 .")
    await bench.executor.release("run-1")
    told["left"] = left_in(root)
    return told


if __name__ == "__main__":
    print(json.dumps(asyncio.run(report(Path(sys.argv[1])))))
