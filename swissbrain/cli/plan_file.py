"""Plans in files: steps in the format of the API, whose long texts may be in separate files."""

import json
import math
from pathlib import Path
from typing import Any

from swissbrain.cli.errors import CommandError

REFERENCE = "$file"
_BOM = "\ufeff"


class PlanError(CommandError):
    """Plan that cannot be read."""


def read_plan(path: Path) -> list[dict[str, Any]]:
    """Return the steps of a plan: a JSON list, or an object whose `plan` is one. Raises PlanError.

    `{"$file": "chart.py"}` at any depth is replaced by the text of that file, with its line ends; its path is relative
    to the plan.
    """
    try:
        # Editors on Windows begin a file with a byte order mark, which is not part of the JSON.
        plan = json.loads(_read_text(path).removeprefix(_BOM), parse_constant=_refuse, parse_float=_finite)
        if isinstance(plan, dict):
            plan = plan.get("plan")
        if not isinstance(plan, list) or not all(isinstance(step, dict) for step in plan):
            raise PlanError(f"{path} holds no list of steps")
        return [_resolve(step, path.parent) for step in plan]
    except ValueError as exc:
        raise PlanError(f"{path} is not JSON: {exc}") from exc
    except RecursionError as exc:
        raise PlanError(f"{path} is nested too deeply") from exc


def _resolve(value: Any, folder: Path) -> Any:
    """Return the value with all references to files replaced."""
    if isinstance(value, list):
        return [_resolve(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    # Exactly one key: an argument that has a key of this name among others is data.
    if value.keys() == {REFERENCE}:
        return _read_text(folder / str(value[REFERENCE]))
    return {name: _resolve(item, folder) for name, item in value.items()}


def _read_text(path: Path) -> str:
    try:
        # Not `read_text`, which turns each line end into a line feed.
        return path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as exc:
        # ValueError: not UTF-8, or a path with a null character.
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise PlanError(f"cannot read {path}: {reason}") from exc


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number
