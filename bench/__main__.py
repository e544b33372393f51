"""`python -m bench [NAME ...]`: run the named benchmarks (default: all), each on a fresh stack, and print tables."""

import sys
from collections.abc import Awaitable, Callable, Mapping

import uvloop

from bench import cancel, durability, first_event, flood, idle, logs, million, queue, streams, throughput
from bench.lab import Lab, lab

BENCHMARKS: Mapping[str, tuple[Callable[[Lab], Awaitable[None]], int]] = {
    "first-event": (first_event.run, 1),
    "throughput": (throughput.run, 1),
    "streams": (streams.run, 1),
    "logs": (logs.run, 0),
    "logs-memory": (logs.soak, 0),
    "logs-million": (million.run, 1),
    "cancel": (cancel.run, 1),
    "flood": (flood.run, 1),
    "durability": (durability.run, 0),
    "idle": (idle.run, 1),
    "idle-10": (idle.run, 10),
}
"""Function of each benchmark, and the number of workers in its stack."""
SELF_CONTAINED = {"queue": queue.run}
"""Benchmarks that start their own servers."""


async def measure(names: list[str]) -> None:
    """Run the named benchmarks one after another."""
    for name in names:
        if name in SELF_CONTAINED:
            await SELF_CONTAINED[name]()
            continue
        benchmark, workers = BENCHMARKS[name]
        async with lab(workers=workers) as laboratory:
            await benchmark(laboratory)


def main() -> int:
    """Run the benchmarks named on the command line. Exit code 2 for an unknown name."""
    known = [*BENCHMARKS, *SELF_CONTAINED]
    names = sys.argv[1:] or known
    if unknown := set(names) - set(known):
        print(f"unknown benchmark {', '.join(sorted(unknown))}; allowed are {', '.join(known)}", file=sys.stderr)
        return 2
    uvloop.run(measure(names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
