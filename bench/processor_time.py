"""Processor time of the benchmark process, which makes the load, and of the processes that it measures."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ProcessorTime:
    """Processor time since its creation. `pids()` returns the measured processes; their children are counted too."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._system_s = _used_s(pids())
        self._generator_s = time.process_time()

    def read(self) -> tuple[float, float]:
        """Return the seconds of this process, and the seconds of the measured processes."""
        return time.process_time() - self._generator_s, _used_s(self._pids()) - self._system_s

    def row(self) -> list[str]:
        """Return a row for a table of measures and values."""
        generator_s, system_s = self.read()
        value = f"{share(generator_s, system_s)} ({generator_s:.2f} s : {system_s:.2f} s)"
        return ["CPU of the load generator : CPU of the measured parts", value]


def share(generator_s: float, system_s: float) -> str:
    """Return the generator's time as a percentage of the system's."""
    return f"{100 * generator_s / max(system_s, 1 / TICKS_PER_S):.0f} %"


def _used_s(pids: Iterable[int]) -> float:
    """Return the seconds used by the processes, their children, and the children that they have waited for."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    roots = set(pids)
    return sum(used for pid, used in ticks.items() if _below(pid, roots, parents)) / TICKS_PER_S


def _below(pid: int, roots: set[int], parents: dict[int, int]) -> bool:
    while pid and pid not in roots:
        pid = parents.get(pid, 0)
    return bool(pid)
