"""Result of a run that a model has planned, as rows for people."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from rich.filesize import decimal
from rich.text import Text

from swissbrain.cli.screen import cell
from swissbrain.cli.terminal import plain, truncate
from swissbrain.models import Run

MAX_SUMMARY_CHARS = 20_000
MAX_RESULT_CHARS = 1000


def result_rows(run: Run) -> Iterator[tuple[Text, Text]]:
    """Yield name and value of each part of the result. The results of an explicit plan's steps have a table."""
    if run.result is None or run.plan is not None:
        return
    name = Text("partial result" if run.error else "result")
    try:
        rows = [*_rows(name, run.result)]
    except (KeyError, TypeError, ValueError, AttributeError):  # a result of a later release
        rows = [(name, _json(run.result))]
    yield from rows


def _rows(name: Text, result: Mapping[str, Any]) -> Iterator[tuple[Text, Text]]:
    words = result["summary"] if "summary" in result else result["text"]
    yield name, cell(truncate(words, MAX_SUMMARY_CHARS))
    if result.get("output") is not None:
        yield Text("output"), _json(result["output"])
    files = (f"{file['path']} ({decimal(int(file['size_bytes']))})" for file in result.get("files", ()))
    if listed := ", ".join(files):
        yield Text("files"), cell(truncate(listed, MAX_RESULT_CHARS))
    steps = [_step(number, step) for number, step in enumerate(result.get("steps", ()), 1)]
    if steps:
        yield Text("plan"), Text(truncate("\n".join(steps), MAX_RESULT_CHARS))


def _step(number: int, step: Mapping[str, Any]) -> str:
    """Return a step on one line, so that no text of a model can forge another step."""
    outcome = step.get("outcome") or "not declared done"
    return " ".join(plain(f"{number}  {step['goal']}: {outcome}").split())


def _json(value: object) -> Text:
    return cell(truncate(msgspec.json.encode(value).decode(), MAX_RESULT_CHARS))
