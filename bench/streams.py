"""Concurrent log streams: each viewer must receive every event once, in order, the terminal event last."""

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
    """Measure and print. Raises RuntimeError if a viewer did not receive every event once and in order."""
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
            raise RuntimeError(f"{run_id}: a viewer received the events {seqs}, the last of type {kind}")
        return seqs

    began, processors = time.perf_counter(), lab.processor_time()
    views = await asyncio.gather(*(view(run_ids[number % RUNS]) for number in range(VIEWERS)))
    elapsed_s, used = time.perf_counter() - began, processors.row()
    for number, run_id in enumerate(run_ids):
        stored = [event["seq"] for event in await lab.page(run_id)]
        if any(view != stored for view in views[number::RUNS]):
            raise RuntimeError(f"{run_id}: a viewer received other events than are stored")
    received = sum(map(len, views))
    p50, p99, longest = milliseconds(delays)
    rows = [
        ["events received, each once and in order", str(received)],
        ["events per second, all viewers", f"{received / elapsed_s:.0f}"],
        used,
        ["from log line to viewer, live only: p50 ms", p50],
        ["from log line to viewer, live only: p99 ms", p99],
        ["from log line to viewer, live only: max ms", longest],
    ]
    table(f"{VIEWERS} concurrent streams of {RUNS} runs", ["measure", "value"], rows)
