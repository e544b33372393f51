"""The two tasks of the demo: the planets by an explicit plan, and by a prompt; and checks of their results."""

import csv
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from infra.settings import Env
from swissbrain import Client
from swissbrain.cli.plan_file import PlanError, read_plan, read_text, read_value
from swissbrain.models import Event, Run

EXAMPLE = Path(__file__).parents[2] / "examples" / "planets"
FILES = frozenset({"planets.csv", "statistics.json", "orbits.svg", "report.html"})
MAX_FILE_BYTES = 10 * 1024 * 1024
TIMEOUT_S = 1800.0
TURNS = 60
_METADATA = {"example": EXAMPLE.name}


class WrongResult(Exception):
    """Result of the run that differs from the expected one; the message is one line."""


@dataclass(frozen=True)
class Task:
    """Task that the demo shows.

    `says`: which of the two it is, and how to get the other one. `send` creates its run. `check` compares the files in
    a folder, and the run's result, with values that are computed here; raises WrongResult. `others_allowed`: the
    workspace may hold more than FILES. `again`: command line that runs the task on a dev stack.
    """

    says: str
    send: Callable[[Client], Run]
    check: Callable[[Path, Run], None]
    others_allowed: bool
    again: str


def choose(env: Env) -> Task:
    """Return the prompt if a model is configured for the worker, else the plan. Raises PlanError."""
    if not EXAMPLE.is_dir():
        raise PlanError("the demo's data is not installed; it is in the folder examples/ of a clone")
    if env.optional("LLM_BASE_URL") is None:
        return _plan_task()
    return _prompt_task(env.optional("LLM_MODEL") or "")


def _plan_task() -> Task:
    plan = read_plan(EXAMPLE / "plan.json")
    return Task(
        says="No model is configured, so the run follows the explicit plan examples/planets/plan.json. With "
        "LLM_BASE_URL, LLM_MODEL and LLM_API_KEY of an OpenAI-compatible endpoint, it is a prompt.",
        send=lambda client: client.create_run(plan=plan, metadata=_METADATA),
        check=_check_planned,
        others_allowed=False,
        again="swissbrain run --plan examples/planets/plan.json --follow",
    )


def _prompt_task(model: str) -> Task:
    prompt, schema = read_text(EXAMPLE / "prompt.txt"), read_value(EXAMPLE / "output_schema.json")

    def send(client: Client) -> Run:
        run = client.create_run(
            prompt=prompt,
            start=False,
            timeout_s=TIMEOUT_S,
            limits={"turns": TURNS},
            output_schema=schema,
            metadata=_METADATA,
        )
        client.upload(run.run_id, "planets.csv", EXAMPLE / "planets.csv")
        client.start(run.run_id)
        return run

    return Task(
        says=f"LLM_BASE_URL is set, so the run is the prompt examples/planets/prompt.txt, which the model '{model}' "
        "plans and carries out. Without LLM_BASE_URL, it follows an explicit plan.",
        send=send,
        check=_check_prompted,
        others_allowed=True,
        again='swissbrain run -f "$(cat examples/planets/prompt.txt)" --file examples/planets/planets.csv '
        "--output-schema examples/planets/output_schema.json",
    )


def check_log(run: Run, events: Sequence[Event]) -> None:
    """Raise WrongResult unless the log is complete."""
    if [event.seq for event in events] != list(range(1, run.last_seq + 1)):
        raise WrongResult("the sequence numbers of the log have a gap")
    if not events or events[-1].type != "run.finished":
        raise WrongResult("the log does not end with run.finished")


def fetch(client: Client, run_id: str, to: Path, *, others_allowed: bool) -> dict[str, int]:
    """Save FILES of the run in the folder `to`. Return their sizes in bytes by path. Raises WrongResult."""
    present = {file.path: file.size_bytes for file in client.files(run_id)}
    if not (present.keys() >= FILES if others_allowed else present.keys() == FILES):
        raise WrongResult(
            f"the workspace holds {', '.join(sorted(present)) or 'nothing'}, not {', '.join(sorted(FILES))}"
        )
    found = {path: present[path] for path in sorted(FILES)}
    for path, size in found.items():
        if size > MAX_FILE_BYTES:
            raise WrongResult(f"{path} has {size} bytes, more than {MAX_FILE_BYTES}")
        client.save(run_id, path, to / path)
        if (to / path).stat().st_size != size:
            raise WrongResult(f"{path} has another size than the list of files says")
    return found


def _check_planned(folder: Path, _: Run) -> None:
    """Compare the files of the plan with values computed here from the shipped data. Raises WrongResult."""
    rows = _rows(folder)
    found = json.loads((folder / "statistics.json").read_text())
    for column, values in found["columns"].items():
        if not math.isclose(values["mean"], _mean(rows, column)):
            raise WrongResult(f"statistics.json has a wrong mean of {column}")
    if found["planets"] != len(rows):
        raise WrongResult("statistics.json counts the planets wrong")
    labels = set(ElementTree.parse(folder / "orbits.svg").getroot().itertext())  # noqa: S314 - written by the demo itself
    if not {row["planet"] for row in rows} <= {label.strip() for label in labels}:
        raise WrongResult("orbits.svg does not name every planet")
    if 'src="orbits.svg"' not in (folder / "report.html").read_text():
        raise WrongResult("report.html does not show the chart")


def _check_prompted(folder: Path, run: Run) -> None:
    """Check what the prompt asks for, as far as its words fix the form. Raises WrongResult."""
    rows = _rows(folder)
    try:
        json.loads(_text(folder / "statistics.json"))
    except (ValueError, RecursionError):
        raise WrongResult("statistics.json is not JSON") from None
    chart, report = _text(folder / "orbits.svg"), _text(folder / "report.html")
    # Not parsed: XML of a model may expand to any size.
    if "<svg" not in chart or "</svg>" not in chart:
        raise WrongResult("orbits.svg is not an SVG")
    if "orbits.svg" not in report:
        raise WrongResult("report.html does not show the chart")
    if missing := [row["planet"] for row in rows if row["planet"] not in report]:
        raise WrongResult(f"report.html does not name {missing[0]}")
    output: Mapping[str, Any] = (run.result or {}).get("output") or {}
    mean, largest = _mean(rows, "distance_million_km"), max(rows, key=lambda row: float(row["diameter_km"]))["planet"]
    if not math.isclose(output.get("mean_distance_million_km", 0), mean, rel_tol=0.005):
        raise WrongResult(f"the mean distance is {mean:g}, not {output.get('mean_distance_million_km')}")
    if output.get("largest_planet") != largest:
        raise WrongResult(f"the largest planet is {largest}, not {output.get('largest_planet')}")


def _rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the shipped data. Raises WrongResult if the folder has another table."""
    source = EXAMPLE / "planets.csv"
    if (folder / "planets.csv").read_bytes() != source.read_bytes():
        raise WrongResult("planets.csv is not the one that was sent")
    with source.open(newline="") as file:
        return list(csv.DictReader(file))


def _mean(rows: Sequence[Mapping[str, str]], column: str) -> float:
    return statistics.mean(float(row[column]) for row in rows)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
