"""Logs live, beside what they replace: from a line of a program to its watchers, at several rates and crowds.

`stream` is the product: emitter, script, gateway, API, SSE. `pub/sub` is the floor: one PUBLISH an event, every watcher
a subscriber of Redis itself, nothing kept. `polling` is what it replaces: every watcher asks for a page once a second.
All run on this one machine with its watchers; `busy` says how much of its processors was used: where it is near
100 % the figures are those of a saturated machine.
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
CROWDS = (1, 100, 1000)
SECONDS = 10.0
POLL_S = 1.0
PATIENCE_S = 60.0
MEGABYTE = 1024 * 1024


@dataclass
class Measured:
    """One row."""

    from_made: list[float]
    from_sent: list[float]
    rate: float
    busy: float
    lost: int
    per_thousand: float | None


async def run(lab: Lab) -> None:
    """Measure and print, on a stack without workers."""
    rows = []
    for crowd in CROWDS:
        for rate in RATES:
            for system in ("stream", "pub/sub", "polling"):
                found = await measure(lab, system, rate, crowd, SECONDS)
                rows.append([system, f"{rate:,}", f"{crowd:,}", *_row(found)])
                print(*rows[-1], flush=True)
    columns = [
        "system",
        "events/s",
        "watchers",
        "p50 ms",
        "p99 ms",
        "p50 ms",
        "p99 ms",
        "made/s",
        "busy",
        "lost",
        "commands",
    ]
    title = (
        "From the making of an event (and, second pair, from its emit) to its watcher; Redis commands for 1,000 events"
    )
    table(title, columns, rows)


async def soak(lab: Lab) -> None:
    """Ten minutes at 1,000 events a second with 100 watchers: what each process holds, minute by minute."""
    minutes = 10
    rows: list[list[str]] = []

    async def watch_memory() -> None:
        for minute in range(minutes + 1):
            rows.append([str(minute), *(f"{size / MEGABYTE:.0f}" for size in _sizes(lab).values())])
            await asyncio.sleep(60)

    watching = asyncio.create_task(watch_memory())
    found = await measure(lab, "stream", 1000, 100, 60.0 * minutes + 5)
    watching.cancel()
    table("1,000 events/s, 100 watchers: resident MB", ["minute", *_sizes(lab)], rows)
    table(
        "The same ten minutes",
        ["p50 ms", "p99 ms", "p50 ms", "p99 ms", "made/s", "busy", "lost", "commands"],
        [_row(found)],
    )


async def measure(lab: Lab, system: str, rate: float, crowd: int, seconds: float) -> Measured:
    """One system at one rate with so many watchers, who are all there before the first event is made."""
    site = lab.stack.config
    name = await lab.create([{"tool": "message", "args": {"text": "x"}}]) if system != "pub/sub" else "bench:channel"
    source = await _source("channel" if system == "pub/sub" else "run", name, rate, seconds, lab)
    watches = [Watch(timed=number < TIMED) for number in range(crowd)]
    connected = [asyncio.Event() for _ in watches]
    path, token = f"/agent/logs/{name}", site.credentials.api_token

    async def follow(number: int) -> None:
        if system == "stream":
            await stream(site.api_url, path, token, watches[number], connected[number])
        elif system == "polling":
            await poll(site.api_url, path, token, watches[number], connected[number], POLL_S)
        else:
            await channel(site.redis_url, name, watches[number], connected[number])

    following = [asyncio.create_task(follow(number)) for number in range(crowd)]
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(each.wait() for each in connected))
    before, jiffies = await lab.commands(), _jiffies()
    count, sent = await _told(source, seconds)
    busy = _share(jiffies, _jiffies())
    _, late = await asyncio.wait(following, timeout=PATIENCE_S)
    spent = (await lab.commands() - before).total()
    for task in late:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    lost = sum(watch.broken or not watch.ended for watch in watches)
    made, emitted = latencies(watches, sent)
    cost = 1000 * spent / count if system == "stream" else None
    return Measured(made, emitted, count / seconds, busy, lost, cost)


def _row(found: Measured) -> list[str]:
    made = milliseconds(found.from_made)[:2] if found.from_made else ["–", "–"]
    sent = milliseconds(found.from_sent)[:2] if found.from_sent else ["–", "–"]
    cost = "–" if found.per_thousand is None else f"{found.per_thousand:.0f}"
    return [*made, *sent, f"{found.rate:,.0f}", f"{100 * found.busy:.0f} %", str(found.lost), cost]


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
        raise RuntimeError("the source did not start")
    return source


async def _told(source: asyncio.subprocess.Process, seconds: float) -> tuple[int, list[tuple[int, float]]]:
    """Let the source begin; at its end, how many events it made and when it sent those up to which."""
    assert source.stdin
    assert source.stdout
    source.stdin.write(b"\n")
    await source.stdin.drain()
    async with asyncio.timeout(seconds + PATIENCE_S):
        said = await source.stdout.readline()
        await source.wait()
    told = json.loads(said)
    return told["made"], [(last, at) for last, at in told["sent"]]


def _sizes(lab: Lab) -> dict[str, int]:
    """Resident bytes of each part of the stack."""
    page = os.sysconf("SC_PAGE_SIZE")
    pids = {name: pid for name, pid in lab.stack.pids.items() if pid}
    return {name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for name, pid in pids.items()}


def _jiffies() -> Sequence[int]:
    """All and idle time of all processors since they were started."""
    fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4]


def _share(before: Sequence[int], after: Sequence[int]) -> float:
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])
