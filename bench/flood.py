"""Time of a run beside a run of the same worker whose program prints for ever, and beside one that only computes.

`beside` is measured while the other program prints as fast as it can, from its first output on. The target: at most
twice the time alone. The program that computes shows which part of the factor is the processor's, not the output's.
"""

import statistics
import time

from bench.lab import Lab, table, until_all

FLOODS = {
    "computes, prints nothing": "echo begin; while :; do :; done",
    "short lines": "yes",
    "long lines": "yes $(head -c 4000 /dev/zero | tr '\\0' x)",
    "overwrites its line": "yes | tr '\\n' '\\r'",
    "no line end": "yes | tr -d '\\n'",
    "binary": "cat /dev/urandom",
    "both streams": "yes >&2 & yes",
}
PLAN = [{"tool": "shell", "args": {"command": f"echo step {number}"}} for number in range(3)]
TRIES = 10


async def run(lab: Lab) -> None:
    """Measure and print."""
    alone = [await measure(lab) for _ in range(TRIES)]
    rows = [["(alone)", *_figures(alone), "1.0"]]
    for name, command in FLOODS.items():
        flood = await lab.create([{"tool": "shell", "args": {"command": command}}])
        await _printing(lab, flood)
        beside = [await measure(lab) for _ in range(TRIES)]
        await lab.cancel(flood)
        await until_all(lab, [flood], "cancelled")
        rows.append([name, *_figures(beside), f"{statistics.median(beside) / statistics.median(alone):.1f}"])
        print(*rows[-1], flush=True)
    table("A run of three programs beside a run of the same worker that …", ["", "p50 ms", "max ms", "factor"], rows)


async def measure(lab: Lab) -> float:
    """Return the seconds from the creation of a run of three programs to its end."""
    began = time.monotonic()
    run_id = await lab.create(PLAN)
    async for _ in lab.events(run_id):
        pass
    return time.monotonic() - began


def _figures(times: list[float]) -> list[str]:
    return [f"{1000 * statistics.median(times):.0f}", f"{1000 * max(times):.0f}"]


async def _printing(lab: Lab, run_id: str) -> None:
    async for event in lab.events(run_id):
        if event["type"] == "tool.output":
            return
    raise RuntimeError("the program that prints for ever has ended")
