"""One run of 1,000,000 events: followed live with the command `swissbrain logs`, then read again from the archive.

`python -m bench.million 20000` does the same with fewer. A call's log takes 256 KB of its output, so many steps print
the lines. `events/s` counts from the creation of the run, or else from the start of the command, until the command
has ended; Redis commands are all that were executed meanwhile, the making of the archive with them. Memory is the
most that was resident since the process was started (VmHWM), in MB; that of the worker is without its sandboxes.
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
"""So many events tell that a run, or a step and its tool, began and ended."""
LOOK_S = 0.05
QUIET_S = 2.0
KILOBYTES = 1024
"""Of a megabyte."""
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Reading:
    """One reading of the log by the command, and what it took."""

    seconds: float
    commands: int
    peak_kb: int


async def run(lab: Lab) -> None:
    """Measure and print a run of the full size."""
    await measure(lab, EVENTS)


async def measure(lab: Lab, events: int) -> None:
    """Measure and print; raises if a reading is not the whole log, each event once and in order."""
    rows = []
    with TemporaryDirectory() as folder:
        output = Path(folder) / "log"
        before, began = await lab.commands(), time.time()
        run_id = await lab.create(plan(events))
        following = await read(lab, output, "logs", run_id, "-f", "--json")
        ended = time.time()
        live = Reading(ended - began, await _spent(lab, before), following.peak_kb)
        found = await _record(lab, run_id)
        rows.append(_row(lab, "live: logs -f --json", live, check(output, found)))
        for name, words in {"again: logs -f --json": ["-f"], "again: logs --json": []}.items():
            again = await read(lab, output, "logs", run_id, *words, "--json")
            rows.append(_row(lab, name, again, check(output, found)))
    assert found.started_ms
    assert found.finished_ms
    took_s, late_s = (found.finished_ms - found.started_ms) / 1000, ended - found.finished_ms / 1000
    title = f"The run took {took_s:.1f} s; who followed it had ended {late_s:.2f} s later. Peaks of memory"
    columns = ["reading", "events", "s", "events/s", "commands/1,000", "swissbrain MB", "API MB", "worker MB"]
    table(title, columns, rows)


def plan(events: int) -> list[dict[str, Any]]:
    """Steps that print so many lines that the run has so many events."""
    steps = -(-(events - AROUND_RUN) // (STEP_LINES + AROUND_STEP))
    lines, longer = divmod(events - AROUND_RUN - AROUND_STEP * steps, steps)
    counts = [lines + (number < longer) for number in range(steps)]
    return [{"tool": "shell", "args": {"command": f"seq {count}"}} for count in counts]


async def read(lab: Lab, output: Path, *words: str) -> Reading:
    """Have the command write to the file, to its end. Raises if it fails."""
    before, began = await lab.commands(), time.monotonic()
    environment = {**parts.base_environment(os.environ), **lab.stack.env}
    command = [sys.executable, "-m", "swissbrain", *words]
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*command, stdout=file, env=environment, cwd=ROOT)
    ending, peak_kb = asyncio.create_task(process.wait()), 0
    try:
        while not ending.done():
            peak_kb = max(peak_kb, _peak_kb(process.pid))
            await asyncio.wait({ending}, timeout=LOOK_S)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    seconds = time.monotonic() - began
    if code := ending.result():
        raise RuntimeError(f"'{' '.join(words)}' ended with exit code {code}")
    return Reading(seconds, (await lab.commands() - before).total(), peak_kb)


def check(output: Path, found: Run) -> int:
    """How many events are in the file. Raises unless they are 1 to the last, in order, and that is the run's end."""
    decoder, count, kind = msgspec.json.Decoder(Event), 0, ""
    with output.open("rb") as lines:
        for count, line in enumerate(lines, 1):
            event = decoder.decode(line)
            kind = event.type
            if event.seq != count:
                raise RuntimeError(f"line {count} of '{output}' is event {event.seq}")
    if count != found.last_seq or kind != TERMINAL_EVENT:
        raise RuntimeError(f"the file ends with event {count}, {kind}; the log with {found.last_seq}")
    return count


async def _spent(lab: Lab, before: Mapping[str, int]) -> int:
    """How many commands Redis has executed until it has nothing to do any more: the archive's rest is made by then."""
    now = await lab.commands()
    while True:
        await asyncio.sleep(QUIET_S)
        last, now = now, await lab.commands()
        if now == last:
            return now.total() - sum(before.values())


async def _record(lab: Lab, run_id: str) -> Run:
    """The run's record. Raises if its log is not in the archive as a whole."""
    response = await lab.api.get(f"/agent/runs/{run_id}")
    response.raise_for_status()
    found = msgspec.json.decode(response.content, type=Run)
    segments = json.loads(await lab.redis.hget(Keys().run(run_id), "segments") or "[]")
    if not segments or segments[-1][1] != found.last_seq:
        raise RuntimeError(f"of {found.last_seq} events only those of {segments} are archived")
    return found


def _row(lab: Lab, name: str, reading: Reading, events: int) -> list[str]:
    peaks = [reading.peak_kb, *(_peak_kb(lab.stack.pids[part]) for part in ("api", "worker-1"))]
    speed, cost = events / reading.seconds, 1000 * reading.commands / events
    figures = [f"{events:,}", f"{reading.seconds:.1f}", f"{speed:,.0f}", f"{cost:.3g}"]
    row = [name, *figures, *(f"{peak / KILOBYTES:.0f}" for peak in peaks)]
    print(*row, flush=True)
    return row


def _peak_kb(pid: int) -> int:
    """The most that was resident, in kB; 0 of a process that has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


async def main(events: int) -> None:
    """On a stack of its own."""
    async with lab() as laboratory:
        await measure(laboratory, events)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else EVENTS))
