"""`python -m bench [NAME ...]`: run the named benchmarks, each on a fresh stack, and print tables.

Without a name: all, except for those that need programs that are not installed with this package.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping

import uvloop

from bench import (
    agent,
    cancel,
    coldstart,
    durability,
    first_event,
    flood,
    idle,
    logs,
    million,
    peer_comparison,
    queue,
    streams,
    throughput,
    tools,
)
from bench.lab import Lab, lab
from bench.npm import Unavailable
from infra.devstack.errors import StackError

BENCHMARKS: Mapping[str, tuple[Callable[[Lab], Awaitable[None]], int]] = {
    "first-event": (first_event.run, 1),
    "throughput": (throughput.run, 1),
    "streams": (streams.run, 1),
    "logs": (logs.run, 0),
    "logs-memory": (logs.soak, 0),
    "logs-million": (million.run, 1),
    "cancel": (cancel.run, 0),
    "flood": (flood.run, 1),
    "durability": (durability.run, 0),
    "agent": (agent.run, 0),
    "tools": (tools.run, 0),
    "coldstart": (coldstart.run, 0),
    "idle": (idle.run, 1),
    "idle-10": (idle.run, 10),
}
"""Function of each benchmark, and the number of workers in its stack."""
SELF_CONTAINED = {"queue": queue.run, "peers": peer_comparison.run}
"""Benchmarks that start their own servers."""
ONLY_BY_NAME = {"peers"}
"""Benchmarks that need programs which are not installed with this package."""


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
    """Run the benchmarks named on the command line. Exit code 2 for an unknown name or a missing program."""
    known = [*BENCHMARKS, *SELF_CONTAINED]
    names = sys.argv[1:] or [name for name in known if name not in ONLY_BY_NAME]
    if unknown := set(names) - set(known):
        print(f"unknown benchmark {', '.join(sorted(unknown))}; allowed are {', '.join(known)}", file=sys.stderr)
        return 2
    try:
        uvloop.run(measure(names))
    except Unavailable as exc:
        print(exc, file=sys.stderr)
        return 2
    except StackError as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
