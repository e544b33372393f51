"""Command `swissbrain demo`: one real run through the whole product, followed live, and a check of its results."""

import csv
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from infra.commands.running import Interrupted, Unsafe, running
from swissbrain import Client
from swissbrain.cli.event_lines import EventLines
from swissbrain.cli.plan_file import PlanError, read_plan
from swissbrain.cli.terminal import cell, console, duration, plain, status
from swissbrain.models import Event, Run

EXAMPLE = Path(__file__).parents[2] / "examples" / "planets"
RESULTS = Path(".swissbrain") / "demo"
"""Folder that receives the files of the run, for users to look at."""
FILES = {"planets.csv", "statistics.json", "orbits.svg", "report.html"}


class WrongResult(Exception):
    """Result of the run that differs from the expected one; the message is one line."""


@dataclass(frozen=True)
class StepTime:
    """Outcome of a step of the plan; `duration_ms` is None if the step did not end."""

    name: str
    status: str
    duration_ms: int | None


def demo(unsafe_no_sandbox: Unsafe = False) -> None:
    """Start everything, watch one real run, check its results, stop everything."""
    try:
        succeeded = _show(unsafe_no_sandbox=unsafe_no_sandbox)
    except Interrupted as exc:
        raise typer.Exit(128 + exc.number) from None
    if not succeeded:
        raise typer.Exit(1)


def _show(*, unsafe_no_sandbox: bool) -> bool:
    """Run the example on a temporary stack. Return True if the results are right. Raises PlanError."""
    out = console()
    if not EXAMPLE.is_dir():
        raise PlanError("the demo's data is not installed; it is in the folder examples/ of a clone")
    plan = read_plan(EXAMPLE / "plan.json")
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="swissbrain-demo-") as folder,
        running(Path(folder), workers=1, port=0, unsafe_no_sandbox=unsafe_no_sandbox) as stack,
    ):
        url = stack.env["SWISSBRAIN_API_URL"]
        out.print(
            f"Redis, S3, gateway, API and worker are up after {duration(1000 * (time.monotonic() - started))}: {url}"
        )
        with Client(url, stack.env["SWISSBRAIN_TOKEN"]) as client:
            run = client.create_run(plan=plan, metadata={"example": EXAMPLE.name})
            out.print(f"run {run.run_id}\n")
            events = [event for event in _follow(client, run.run_id, out) if isinstance(event, Event)]
            run = client.get_run(run.run_id)
            return _report(client, run, events, url, out)


def _follow(client: Client, run_id: str, out: Console) -> list[object]:
    seen: list[object] = []
    with EventLines(out) as lines:
        for item in client.events(run_id):
            lines.show(item)
            seen.append(item)
    return seen


def _report(client: Client, run: Run, events: Sequence[Event], url: str, out: Console) -> bool:
    """Print the summary. Return True if the run succeeded and its log and files are right."""
    out.print()
    out.print(_steps_table(run, events))
    out.print()
    try:
        if run.status != "succeeded":
            raise WrongResult(f"the run {run.status}")
        _check_log(run, events)
        sizes = _fetch(client, run.run_id, RESULTS)
        _check_files(RESULTS)
    except WrongResult as exc:
        out.print(f"Not as it should be: {plain(exc)}", style="red", markup=False)
        return False
    took = duration((run.finished_ms or 0) - run.created_ms)
    out.print(f"The run [green]succeeded[/] in {took}; {len(events)} events; its files in S3 are right:")
    for path, size in sizes.items():
        out.print(f"  {decimal(size):>12}  {RESULTS / path}", markup=False, soft_wrap=True)
    out.print(
        f"\nThe API was at {url}, and stops now. 'make dev' starts it to stay; 'swissbrain run --plan "
        "examples/planets/plan.json --follow' runs this again.",
        soft_wrap=True,
        markup=False,
    )
    return True


def _steps_table(run: Run, events: Sequence[Event]) -> Table:
    table = Table("step", "status", "took", box=None, pad_edge=False, header_style="bold")
    for step in _step_times(run, events):
        took = "" if step.duration_ms is None else duration(step.duration_ms)
        table.add_row(cell(step.name), status(step.status), took)
    return table


def _step_times(run: Run, events: Sequence[Event]) -> list[StepTime]:
    ended = {event.step: event.data for event in events if event.type == "step.finished"}
    times = []
    for index, step in enumerate(run.plan or ()):
        data = ended.get(index, {})
        times.append(StepTime(step.name or step.tool, data.get("status", "not done"), data.get("duration_ms")))
    return times


def _check_log(run: Run, events: Sequence[Event]) -> None:
    if [event.seq for event in events] != list(range(1, run.last_seq + 1)):
        raise WrongResult("the sequence numbers of the log have a gap")
    if not events or events[-1].type != "run.finished":
        raise WrongResult("the log does not end with run.finished")


def _fetch(client: Client, run_id: str, to: Path) -> dict[str, int]:
    """Save the files of the run in the folder `to`. Return their sizes in bytes by path."""
    to.mkdir(parents=True, exist_ok=True)
    found = {file.path: file.size_bytes for file in client.files(run_id)}
    if found.keys() != FILES:
        raise WrongResult(
            f"the workspace holds {', '.join(sorted(found)) or 'nothing'}, not {', '.join(sorted(FILES))}"
        )
    for path, size in found.items():
        client.save(run_id, path, to / path)
        if (to / path).stat().st_size != size:
            raise WrongResult(f"{path} has another size than the list of files says")
    return found


def _check_files(folder: Path) -> None:
    """Compare the files of the run with values computed here from the shipped data. Raises WrongResult."""
    source = EXAMPLE / "planets.csv"
    if (folder / "planets.csv").read_bytes() != source.read_bytes():
        raise WrongResult("planets.csv is not the one that was sent")
    found = json.loads((folder / "statistics.json").read_text())
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for column, values in found["columns"].items():
        if not math.isclose(values["mean"], statistics.mean(float(row[column]) for row in rows)):
            raise WrongResult(f"statistics.json has a wrong mean of {column}")
    if found["planets"] != len(rows):
        raise WrongResult("statistics.json counts the planets wrong")
    labels = set(ElementTree.parse(folder / "orbits.svg").getroot().itertext())  # noqa: S314 - written by the demo itself
    if not {row["planet"] for row in rows} <= {label.strip() for label in labels}:
        raise WrongResult("orbits.svg does not name every planet")
    if 'src="orbits.svg"' not in (folder / "report.html").read_text():
        raise WrongResult("report.html does not show the chart")
