"""One run of 1,000,000 events, followed live with the command `swissbrain logs`, then read from the archive.

`python -m bench.million 20000` logs fewer events. The lines are printed by many steps, because the log takes at most
256 KB of the output of a call. `events/s`: events per second, from the creation of the run (live) or the start of the
command (archive) to the end of the command. Redis commands: all commands in that time, including the commands of
archiving. Memory: maximum resident size of each process since its start (VmHWM) in MB; for the worker without its
sandboxes.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from bench.lab import Lab, lab, table
from infra.contract.keys import Keys
from infra.contract.log import TERMINAL_EVENT
from infra.devstack import processes as parts
from swissbrain.models import Event, Run

EVENTS = 1_000_000
STEP_LINES = 10_000
AROUND_RUN, AROUND_STEP = 2, 4
"""Number of events for start and end of a run, and of a step with its tool."""
SAMPLE_S = 0.05
QUIET_S = 2.0
KB_PER_MB = 1024
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class CommandCost:
    """Cost of reading the log once with the command."""

    seconds: float
    commands: int
    peak_kb: int


async def run(lab: Lab) -> None:
    """Measure and print a run of EVENTS events."""
    await measure(lab, EVENTS)


async def measure(lab: Lab, events: int) -> None:
    """Measure and print. Raises RuntimeError if the command does not print every event once and in order."""
    rows = []
    with TemporaryDirectory() as folder:
        output = Path(folder) / "log"
        before, began = await lab.commands(), time.time()
        run_id = await lab.create(plan(events))
        following = await read(lab, output, "logs", run_id, "-f", "--json")
        ended = time.time()
        live = CommandCost(ended - began, await _commands_since(lab, before), following.peak_kb)
        found = await _record(lab, run_id)
        rows.append(_row(lab, "live: logs -f --json", live, check(output, found)))
        for name, options in {"archive: logs -f --json": ["-f"], "archive: logs --json": []}.items():
            archived = await read(lab, output, "logs", run_id, *options, "--json")
            rows.append(_row(lab, name, archived, check(output, found)))
    assert found.started_ms
    assert found.finished_ms
    run_s, delay_s = (found.finished_ms - found.started_ms) / 1000, ended - found.finished_ms / 1000
    title = f"Run of {run_s:.1f} s; the live command ended {delay_s:.2f} s after it. MB: peak memory"
    columns = ["command", "events", "s", "events/s", "commands/1,000", "swissbrain MB", "API MB", "worker MB"]
    table(title, columns, rows)


def plan(events: int) -> list[dict[str, Any]]:
    """Return steps that print as many lines as make a run of `events` events."""
    steps = -(-(events - AROUND_RUN) // (STEP_LINES + AROUND_STEP))
    lines, longer = divmod(events - AROUND_RUN - AROUND_STEP * steps, steps)
    counts = [lines + (number < longer) for number in range(steps)]
    return [{"tool": "shell", "args": {"command": f"seq {count}"}} for count in counts]


async def read(lab: Lab, output: Path, *arguments: str) -> CommandCost:
    """Run the command `swissbrain` with its output in the file. Raises RuntimeError if it fails."""
    before, began = await lab.commands(), time.monotonic()
    environment = {**parts.base_environment(os.environ), **lab.stack.env}
    command = [sys.executable, "-m", "swissbrain", *arguments]
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*command, stdout=file, env=environment, cwd=ROOT)
    ending, peak_kb = asyncio.create_task(process.wait()), 0
    try:
        while not ending.done():
            peak_kb = max(peak_kb, _peak_kb(process.pid))
            await asyncio.wait({ending}, timeout=SAMPLE_S)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    seconds = time.monotonic() - began
    if code := ending.result():
        raise RuntimeError(f"'swissbrain {' '.join(arguments)}' ended with exit code {code}")
    return CommandCost(seconds, (await lab.commands() - before).total(), peak_kb)


def check(output: Path, found: Run) -> int:
    """Return the number of events in the file. Raises RuntimeError unless it holds the whole log in order."""
    decoder, count, kind = msgspec.json.Decoder(Event), 0, ""
    with output.open("rb") as lines:
        for count, line in enumerate(lines, 1):
            event = decoder.decode(line)
            kind = event.type
            if event.seq != count:
                raise RuntimeError(f"line {count} of '{output}' is event {event.seq}")
    if count != found.last_seq or kind != TERMINAL_EVENT:
        raise RuntimeError(f"the file ends with event {count} ({kind}), the log with event {found.last_seq}")
    return count


async def _commands_since(lab: Lab, before: Mapping[str, int]) -> int:
    """Wait until Redis is idle, so that the log is archived; return the number of commands executed since `before`."""
    now = await lab.commands()
    while True:
        await asyncio.sleep(QUIET_S)
        last, now = now, await lab.commands()
        if now == last:
            return now.total() - sum(before.values())


async def _record(lab: Lab, run_id: str) -> Run:
    """Return the run's record. Raises RuntimeError if its log is not completely archived."""
    found = msgspec.json.decode(await lab.api.request("GET", f"/agent/runs/{run_id}"), type=Run)
    segments = json.loads(await lab.redis.hget(Keys().run(run_id), "segments") or "[]")
    if not segments or segments[-1][1] != found.last_seq:
        raise RuntimeError(f"of {found.last_seq} events only the segments {segments} are archived")
    return found


def _row(lab: Lab, name: str, cost: CommandCost, events: int) -> list[str]:
    peaks = [cost.peak_kb, *(_peak_kb(lab.stack.pids[part]) for part in ("api", "worker-1"))]
    per_second, per_thousand = events / cost.seconds, 1000 * cost.commands / events
    figures = [f"{events:,}", f"{cost.seconds:.1f}", f"{per_second:,.0f}", f"{per_thousand:.3g}"]
    row = [name, *figures, *(f"{peak / KB_PER_MB:.0f}" for peak in peaks)]
    print(*row, flush=True)
    return row


def _peak_kb(pid: int) -> int:
    """Return the maximum resident size of a process in kB; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


async def main(events: int) -> None:
    """Measure on a fresh stack."""
    async with lab() as laboratory:
        await measure(laboratory, events)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else EVENTS))
