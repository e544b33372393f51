"""Many viewers: each must see every event once, in order, ending with the terminal event."""

import asyncio
import time
from typing import Any

from bench.lab import Lab, milliseconds, table

RUNS = 20
VIEWERS = 200
LINES = 50
PLAN: list[dict[str, Any]] = [
    {
        "tool": "code",
        "args": {"language": "python", "source": f"import time\nfor n in range({LINES}): print(n); time.sleep(0.05)"},
    }
]


async def run(lab: Lab) -> None:
    """Measure and print; raises if a viewer missed, doubled or reordered anything."""
    run_ids = [await lab.create(PLAN) for _ in range(RUNS)]
    delays: list[float] = []

    async def view(run_id: str) -> list[int]:
        seqs, kind, joined = [], "", 0.0
        async for event in lab.events(run_id):
            joined = joined or time.time()
            if event["type"] == "tool.output" and event["ts"] / 1000 > joined:
                delays.append(time.time() - event["ts"] / 1000)
            seqs.append(event["seq"])
            kind = event["type"]
        if kind != "run.finished" or seqs != list(range(1, len(seqs) + 1)):
            raise RuntimeError(f"{run_id}: a viewer saw {seqs}, ending with {kind}")
        return seqs

    began = time.perf_counter()
    views = await asyncio.gather(*(view(run_ids[number % RUNS]) for number in range(VIEWERS)))
    took_s = time.perf_counter() - began
    for number, run_id in enumerate(run_ids):
        kept = [event["seq"] for event in await lab.page(run_id)]
        if any(view != kept for view in views[number::RUNS]):
            raise RuntimeError(f"{run_id}: a viewer saw other events than are kept")
    seen = sum(map(len, views))
    rows = [
        ["events seen, none missing, doubled or out of order", str(seen)],
        ["events a second over all viewers", f"{seen / took_s:.0f}"],
        *zip(
            ("from a line's time stamp to its viewer, once joined: p50 ms", "p99 ms", "max ms"),
            milliseconds(delays),
            strict=True,
        ),
    ]
    table(f"{VIEWERS} concurrent streams on {RUNS} runs", ["what", "value"], [list(row) for row in rows])
