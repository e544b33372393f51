"""`python -m tests.chaos [--kubernetes] [--minutes M] [--seed N]`: play rounds of faults, then print tables."""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.cluster import CLUSTER_KINDS
from tests.chaos.plans import KINDS
from tests.chaos.prompts import PROMPT_KINDS
from tests.chaos.rounds import Report, play
from tests.chaos.site import running_site

ROUND_S = 45.0


def main() -> int:
    """Play rounds until the first violation. Exit code 1 if there was one."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", default=str(time.time_ns() % 1_000_000))
    parser.add_argument("--kubernetes", action="store_true", help="execute programs in Jobs of the test cluster")
    parser.add_argument("--keep", type=Path, help="folder in which logs and data are left after the end")
    options = parser.parse_args()
    console, report = Console(), Report()
    console.print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + 60 * options.minutes
        per_second = 1.5 if options.kubernetes else 4.0  # a Job takes ten times as long as a local program
        kinds = CLUSTER_KINDS if options.kubernetes else (*KINDS, *PROMPT_KINDS)
        with running_site(folder, kubernetes=options.kubernetes) as site:
            number = 0
            while time.monotonic() < end and not report.violations:
                number += 1
                play(site, f"{options.seed}/{number}", ROUND_S, report, per_second=per_second, kinds=kinds)
                runs, faults = sum(report.runs.values()), sum(report.faults.values())
                console.print(f"round {number}: {runs} runs, {faults} faults, settled in {report.settle_s[-1]:.0f} s")
    show(console, report)
    for violation in report.violations:
        console.print(f"[red]violation:[/red] {violation}", highlight=False, markup=True)
    return 1 if report.violations else 0


def show(console: Console, report: Report) -> None:
    """Print the tables of a report."""
    table = Table("fault", "count", title="faults")
    for fault, count in sorted(report.faults.items()):
        table.add_row(fault, str(count))
    table.add_row("all", str(sum(report.faults.values())), style="bold")
    console.print(table)
    table = Table("kind", "status", "runs", title="runs")
    for (kind, status), count in sorted(report.runs.items()):
        table.add_row(kind, status, str(count))
    table.add_row("all", "", str(sum(report.runs.values())), style="bold")
    console.print(table)
    table = Table("check", "result", title="checks")
    table.add_row("log events compared, pages with streams", str(report.events))
    table.add_row("logs followed live during the faults", str(report.followed_live))
    table.add_row("side effects", str(report.effects))
    table.add_row("side effects repeated by restarted steps", str(report.repeated_effects))
    table.add_row("attempts of a run: mean, maximum", _figures(report.attempts, digits=1))
    table.add_row("guarantees violated", str(len(report.violations)))
    console.print(table)
    table = Table("seconds", "median, maximum", title="recovery")
    table.add_row("from kill -9 of a worker to the next claim of its run", _figures(report.takeover_s))
    table.add_row("from a cancel to the end of its run, during faults", _figures(report.cancel_s))
    table.add_row("from the last fault to the end of all runs", _figures(report.settle_s))
    console.print(table)


def _figures(values: Sequence[float], digits: int = 2) -> str:
    if not values:
        return "none"
    average = statistics.fmean(values) if digits == 1 else statistics.median(values)
    return f"{average:.{digits}f}  {max(values):.{digits}f}  of {len(values)}"


if __name__ == "__main__":
    sys.exit(main())
