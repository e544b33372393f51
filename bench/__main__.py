"""`python -m bench [NAME ...]`: all benchmarks, or the named ones, each on a fresh stack."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping

from bench import cancel, durability, first_event, idle, logs, million, queue, streams, throughput
from bench.lab import Lab, lab

BENCHMARKS: Mapping[str, tuple[Callable[[Lab], Awaitable[None]], int]] = {
    "first-event": (first_event.run, 1),
    "throughput": (throughput.run, 1),
    "streams": (streams.run, 1),
    "logs": (logs.run, 0),
    "logs-memory": (logs.soak, 0),
    "logs-million": (million.run, 1),
    "cancel": (cancel.run, 1),
    "durability": (durability.run, 0),
    "idle": (idle.run, 1),
    "idle-10": (idle.run, 10),
}
"""Each with how many workers the stack has."""
APART = {"queue": queue.run}
"""Those that start what they need themselves."""


async def measure(names: list[str]) -> None:
    """Run the named benchmarks one after the other."""
    for name in names:
        if name in APART:
            await APART[name]()
            continue
        benchmark, workers = BENCHMARKS[name]
        async with lab(workers=workers) as laboratory:
            await benchmark(laboratory)


def main() -> int:
    """Exit code 2 for an unknown name."""
    known = [*BENCHMARKS, *APART]
    names = sys.argv[1:] or known
    if unknown := set(names) - set(known):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    asyncio.run(measure(names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
