"""Executor of another user: `python -m tests.local_executor.other_user SCRATCH` prints one line of JSON."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from infra.contract.errors import ExecutorUnavailable
from infra.contract.execution import ExecLimits
from infra.egress.local import LocalEgress
from infra.egress.settings import NetworkSettings
from infra.local_executor import LocalExecutor, sandbox
from infra.scratch_root import ScratchRoot
from tests.local_executor.rig import DAEMON, MB, RUN_ID, Bench, scratch_content

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
FETCH = """
import urllib.request
try: urllib.request.urlopen('http://other.test/')
except urllib.error.HTTPError as error: print(error.code, end='')
"""
MANY_FILES = f"""
import os, time
for number in range({sandbox.TMP_FILES + 1000}):
    os.mknod(f'/tmp/{{number}}')
time.sleep(60)
"""


async def report(root: Path) -> dict[str, Any]:
    """Return the results of several programs, or the reason why the executor refuses to run any."""
    bench = Bench(LocalExecutor(ScratchRoot(root), network=LocalEgress(NetworkSettings())), root)
    try:
        await bench.executor.check()
    except ExecutorUnavailable as exc:
        return {"refused": str(exc), "left": scratch_content(root)}
    results: dict[str, Any] = {"worker": os.geteuid()}
    results["out"] = (await bench.run("id -u; ls -a /root /etc/shadow /sys /home; pwd")).out
    results["written"] = (await bench.run("echo x > made; echo y > /usr/bin/made")).code
    results["made"] = (bench.files.directory / "made").read_text()
    results["devices"] = (await bench.run("echo x > /dev/planted || echo x > /dev/shm/fine; ls /dev/shm")).out
    results["many files"] = (await bench.run(MANY_FILES, "python", timeout_s=100)).code
    results["namespaces"] = (await bench.run("unshare -Ur id -u")).out
    results["capabilities"] = (await bench.run("grep CapEff /proc/self/status")).out.split()[-1]
    hog = await bench.run("x = bytearray(3 * 1024 ** 3)", "python", limits=ExecLimits(memory_bytes=128 * MB))
    results["hog"] = hog.err.strip().splitlines()[-1]
    results["bomb"] = int((await bench.run(BOMB, "python", limits=ExecLimits(processes=32))).out)
    results["network"] = (await bench.run(FETCH, "python", network=["a.test:80"])).out
    running = await bench.start(DAEMON)
    results["daemons"] = bool(bench.alive())
    running.cancel()
    await asyncio.wait({running})
    results["alive"] = len(bench.alive())
    await bench.run("mkdir -p a/b/c/d; touch a/b/c/d/e; chmod 0 a/b/c/d a/b/c a/b a; chmod 0 .")
    await bench.executor.release(RUN_ID)
    results["left"] = scratch_content(root)
    return results


if __name__ == "__main__":
    print(json.dumps(asyncio.run(report(Path(sys.argv[1])))))
