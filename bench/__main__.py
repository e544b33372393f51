"""`python -m bench [NAME ...]`: all benchmarks, or the named ones, each on a fresh stack."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping

from bench import cancel, durability, first_event, idle, streams, throughput
from bench.lab import Lab, lab

BENCHMARKS: Mapping[str, Callable[[Lab], Awaitable[None]]] = {
    "first-event": first_event.run,
    "throughput": throughput.run,
    "streams": streams.run,
    "cancel": cancel.run,
    "durability": durability.run,
    "idle": idle.run,
}


async def measure(names: list[str]) -> None:
    """Run the named benchmarks one after the other."""
    for name in names:
        async with lab() as laboratory:
            await BENCHMARKS[name](laboratory)


def main() -> int:
    """Exit code 2 for an unknown name."""
    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    asyncio.run(measure(names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
