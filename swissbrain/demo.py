"""The demonstration: one real run through the whole product, watched live, and what came out of it checked."""

import csv
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from swissbrain.client import Client
from swissbrain.event_lines import EventLines
from swissbrain.models import Event, Run
from swissbrain.plan_file import PlanError, read_plan
from swissbrain.terminal import cell, console, duration, plain, status

if TYPE_CHECKING:
    from infra.devstack.stack import DevStack

EXAMPLE = Path(__file__).parents[1] / "examples" / "planets"
KEPT = Path(".swissbrain") / "demo"
"""Where the files of the run are left for a look at them."""
FILES = {"planets.csv", "statistics.json", "orbits.svg", "report.html"}

Start = Callable[[Path], AbstractContextManager["DevStack"]]


class Wrong(Exception):
    """What came out of the run is not what must come out; the message is one line."""


@dataclass(frozen=True)
class StepTime:
    """A step of the plan and how it went; `duration_ms` is None if it did not end."""

    name: str
    status: str
    duration_ms: int | None


def main(start: Start) -> bool:
    """Start everything, watch the run, check its files, stop everything. Whether all went well. Raises PlanError."""
    out = console()
    if not EXAMPLE.is_dir():
        raise PlanError("the demo's data is not installed; it is in the folder examples/ of a clone")
    plan = read_plan(EXAMPLE / "plan.json")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="swissbrain-demo-") as folder, start(Path(folder)) as stack:
        url = stack.env["SWISSBRAIN_API_URL"]
        out.print(
            f"Redis, S3, gateway, API and worker are up after {duration(1000 * (time.monotonic() - began))}: {url}"
        )
        with Client(url, stack.env["SWISSBRAIN_TOKEN"]) as client:
            run = client.create_run(plan=plan, metadata={"example": EXAMPLE.name})
            out.print(f"run {run.run_id}\n")
            events = [event for event in _watched(client, run.run_id, out) if isinstance(event, Event)]
            run = client.get_run(run.run_id)
            return _report(client, run, events, url, out)


def _watched(client: Client, run_id: str, out: Console) -> list[object]:
    seen: list[object] = []
    with EventLines(out) as lines:
        for item in client.events(run_id):
            lines.show(item)
            seen.append(item)
    return seen


def _report(client: Client, run: Run, events: Sequence[Event], url: str, out: Console) -> bool:
    """Print the summary; whether the run succeeded and its log and files are right."""
    out.print()
    out.print(_steps_table(run, events))
    out.print()
    try:
        if run.status != "succeeded":
            raise Wrong(f"the run {run.status}")
        _check_log(run, events)
        sizes = _fetch(client, run.run_id, KEPT)
        _check_files(KEPT)
    except Wrong as exc:
        out.print(f"Not as it should be: {plain(exc)}", style="red", markup=False)
        return False
    took = duration((run.finished_ms or 0) - run.created_ms)
    out.print(f"The run [green]succeeded[/] in {took}; {len(events)} events; its files in S3 are right:")
    for path, size in sizes.items():
        out.print(f"  {decimal(size):>12}  {KEPT / path}", markup=False, soft_wrap=True)
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
        raise Wrong("the log has holes")
    if not events or events[-1].type != "run.finished":
        raise Wrong("the log does not end with the end of the run")


def _fetch(client: Client, run_id: str, to: Path) -> dict[str, int]:
    """Save the run's files; their sizes in bytes."""
    to.mkdir(parents=True, exist_ok=True)
    found = {file.path: file.size_bytes for file in client.files(run_id)}
    if found.keys() != FILES:
        raise Wrong(f"the workspace holds {', '.join(sorted(found)) or 'nothing'}, not {', '.join(sorted(FILES))}")
    for path, size in found.items():
        client.save(run_id, path, to / path)
        if (to / path).stat().st_size != size:
            raise Wrong(f"{path} has another size than the list of files says")
    return found


def _check_files(folder: Path) -> None:
    """Compare what the run made with what is computed here from the shipped figures."""
    source = EXAMPLE / "planets.csv"
    if (folder / "planets.csv").read_bytes() != source.read_bytes():
        raise Wrong("planets.csv is not the one that was sent")
    found = json.loads((folder / "statistics.json").read_text())
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for column, values in found["columns"].items():
        if not math.isclose(values["mean"], statistics.mean(float(row[column]) for row in rows)):
            raise Wrong(f"statistics.json has a wrong mean of {column}")
    if found["planets"] != len(rows):
        raise Wrong("statistics.json counts the planets wrong")
    labels = set(ElementTree.parse(folder / "orbits.svg").getroot().itertext())  # noqa: S314 - it is our own
    if not {row["planet"] for row in rows} <= {label.strip() for label in labels}:
        raise Wrong("orbits.svg does not name every planet")
    if 'src="orbits.svg"' not in (folder / "report.html").read_text():
        raise Wrong("report.html does not show the chart")
