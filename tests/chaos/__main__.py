"""`python -m tests.chaos [--minutes M] [--seed N]`: rounds of faults until the time is over, and a table."""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.rounds import Report, play
from tests.chaos.site import site

ROUND_S = 45.0


def main() -> int:
    """Exit code 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", default=str(time.time_ns() % 1_000_000))
    parser.add_argument("--keep", type=Path, help="a folder to keep everything in")
    options = parser.parse_args()
    console, report = Console(), Report()
    console.print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + 60 * options.minutes
        with site(folder) as place:
            number = 0
            while time.monotonic() < end and not report.complaints:
                number += 1
                play(place, f"{options.seed}/{number}", ROUND_S, report)
                runs, faults = sum(report.runs.values()), sum(report.faults.values())
                console.print(f"round {number}: {runs} runs, {faults} faults, settled in {report.settle_s[-1]:.0f} s")
    show(console, report)
    for complaint in report.complaints:
        console.print(f"[red]broken:[/red] {complaint}", highlight=False, markup=True)
    return 1 if report.complaints else 0


def show(console: Console, report: Report) -> None:
    """Print what happened."""
    table = Table("fault", "times", title="faults")
    for fault, count in sorted(report.faults.items()):
        table.add_row(fault, str(count))
    table.add_row("all", str(sum(report.faults.values())), style="bold")
    console.print(table)
    table = Table("kind", "ended", "runs", title="runs")
    for (kind, status), count in sorted(report.runs.items()):
        table.add_row(kind, status, str(count))
    table.add_row("all", "", str(sum(report.runs.values())), style="bold")
    console.print(table)
    table = Table("looked at", "result", title="checks")
    table.add_row("events of logs, pages against streams", str(report.events))
    table.add_row("logs followed live through the faults", str(report.followed_live))
    table.add_row("side effects", str(report.effects))
    table.add_row("of these by an interrupted step that was begun again", str(report.repeated_effects))
    table.add_row("attempts of a run, mean and most", _figures(report.attempts, digits=1))
    table.add_row("promises broken", str(len(report.complaints)))
    console.print(table)
    table = Table("seconds", "median and most", title="recovery")
    table.add_row("from the kill -9 of its worker until a run goes on", _figures(report.takeover_s))
    table.add_row("from cancel until the end, faults included", _figures(report.cancel_s))
    table.add_row("from the last fault until all runs have ended", _figures(report.settle_s))
    console.print(table)


def _figures(values: Sequence[float], digits: int = 2) -> str:
    if not values:
        return "none"
    middle = statistics.fmean(values) if digits == 1 else statistics.median(values)
    return f"{middle:.{digits}f}  {max(values):.{digits}f}  of {len(values)}"


if __name__ == "__main__":
    sys.exit(main())
