"""Latency of live logs from a program's line to its watchers, for several rates and numbers of watchers.

`stream` is the product: emitter, script, gateway, API, SSE. `pub/sub` is the lower bound: one PUBLISH per event, every
watcher subscribed to Redis directly, nothing stored. `polling` is the replaced method: every watcher requests a page
once a second. All processes and watchers run on this machine. `busy` is the used share of its processors; near 100 %
the figures measure a saturated machine.
"""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.lab import Lab, milliseconds, table
from bench.log_watchers import TIMED, Watch, channel, latencies, poll, stream
from infra.devstack import processes as parts

RATES = (1, 100, 1000)
WATCHERS = (1, 100, 1000)
SECONDS = 10.0
POLL_S = 1.0
TIMEOUT_S = 60.0
MEGABYTE = 1024 * 1024
COLUMNS = ["p50 ms", "p99 ms", "p50 ms", "p99 ms", "made/s", "busy", "incomplete", "commands"]
COLUMNS_EXPLAINED = "p50, p99: from creation, then from emit, to watcher. Commands: Redis commands per 1,000 events"


@dataclass
class Measured:
    """Result of one measurement, in seconds. `incomplete`: number of watchers that did not get the whole log."""

    from_made: list[float]
    from_sent: list[float]
    rate: float
    busy: float
    incomplete: int
    commands_per_thousand: float | None


async def run(lab: Lab) -> None:
    """Measure and print, on a stack without workers."""
    rows = []
    for watchers in WATCHERS:
        for rate in RATES:
            for system in ("stream", "pub/sub", "polling"):
                found = await measure(lab, system, rate, watchers, SECONDS)
                rows.append([system, f"{rate:,}", f"{watchers:,}", *_row(found)])
                print(*rows[-1], flush=True)
    table(f"Latency of live logs. {COLUMNS_EXPLAINED}", ["system", "events/s", "watchers", *COLUMNS], rows)


async def soak(lab: Lab) -> None:
    """Log 1,000 events per second to 100 watchers for ten minutes; print the memory of each process every minute."""
    minutes = 10
    rows: list[list[str]] = []

    async def sample_memory() -> None:
        for minute in range(minutes + 1):
            rows.append([str(minute), *(f"{size / MEGABYTE:.0f}" for size in _sizes(lab).values())])
            await asyncio.sleep(60)

    sampling = asyncio.create_task(sample_memory())
    found = await measure(lab, "stream", 1000, 100, 60.0 * minutes + 5)
    sampling.cancel()
    table("Resident memory in MB, 1,000 events/s, 100 watchers", ["minute", *_sizes(lab)], rows)
    table(f"Latency during these ten minutes. {COLUMNS_EXPLAINED}", COLUMNS, [_row(found)])


async def measure(lab: Lab, system: str, rate: float, watchers: int, seconds: float) -> Measured:
    """Measure one system at one rate. All watchers are connected before the first event is logged."""
    config = lab.stack.config
    name = await lab.create([{"tool": "message", "args": {"text": "x"}}]) if system != "pub/sub" else "bench:channel"
    source = await _source("channel" if system == "pub/sub" else "run", name, rate, seconds, lab)
    watches = [Watch(timed=number < TIMED) for number in range(watchers)]
    connected = [asyncio.Event() for _ in watches]
    path, token = f"/agent/logs/{name}", config.credentials.api_token

    async def follow(number: int) -> None:
        if system == "stream":
            await stream(config.api_url, path, token, watches[number], connected[number])
        elif system == "polling":
            await poll(config.api_url, path, token, watches[number], connected[number], POLL_S)
        else:
            await channel(config.redis_url, name, watches[number], connected[number])

    following = [asyncio.create_task(follow(number)) for number in range(watchers)]
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*(each.wait() for each in connected))
    before, jiffies = await lab.commands(), _jiffies()
    count, sent = await _run_source(source, seconds)
    busy = _share(jiffies, _jiffies())
    _, unfinished = await asyncio.wait(following, timeout=TIMEOUT_S)
    executed = (await lab.commands() - before).total()
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    incomplete = sum(watch.broken or not watch.ended for watch in watches)
    from_made, from_sent = latencies(watches, sent)
    cost = 1000 * executed / count if system == "stream" else None
    return Measured(from_made, from_sent, count / seconds, busy, incomplete, cost)


def _row(found: Measured) -> list[str]:
    made = milliseconds(found.from_made)[:2] if found.from_made else ["–", "–"]
    sent = milliseconds(found.from_sent)[:2] if found.from_sent else ["–", "–"]
    cost = "–" if found.commands_per_thousand is None else f"{found.commands_per_thousand:.0f}"
    return [*made, *sent, f"{found.rate:,.0f}", f"{100 * found.busy:.0f} %", str(found.incomplete), cost]


async def _source(kind: str, name: str, rate: float, seconds: float, lab: Lab) -> asyncio.subprocess.Process:
    part = parts.worker(lab.stack.config, parts.base_environment(os.environ), 1)
    command = [sys.executable, "-m", "bench.log_source", kind, name, str(rate), str(seconds)]
    source = await asyncio.create_subprocess_exec(
        *command,
        env=dict(part.environment),
        cwd=Path(__file__).parent.parent,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * MEGABYTE,
    )
    assert source.stdout
    if await source.stdout.readline() != b"ready\n":
        raise RuntimeError("the log source ended before it was ready")
    return source


async def _run_source(source: asyncio.subprocess.Process, seconds: float) -> tuple[int, list[tuple[int, float]]]:
    """Start the source and wait for its end; return its event count, and last seq and sending time of each batch."""
    assert source.stdin
    assert source.stdout
    source.stdin.write(b"\n")
    await source.stdin.drain()
    async with asyncio.timeout(seconds + TIMEOUT_S):
        line = await source.stdout.readline()
        await source.wait()
    result = json.loads(line)
    return result["made"], [(last, at) for last, at in result["sent"]]


def _sizes(lab: Lab) -> dict[str, int]:
    """Return the resident bytes of each part of the stack."""
    page = os.sysconf("SC_PAGE_SIZE")
    pids = {name: pid for name, pid in lab.stack.pids.items() if pid}
    return {name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for name, pid in pids.items()}


def _jiffies() -> Sequence[int]:
    """Return total time and idle time of all processors since boot, in clock ticks."""
    fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4]


def _share(before: Sequence[int], after: Sequence[int]) -> float:
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])
