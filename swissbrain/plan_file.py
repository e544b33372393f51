"""Plans in files: the steps as the API takes them, with long texts in files of their own."""

import json
from pathlib import Path
from typing import Any

REFERENCE = "$file"


class PlanError(Exception):
    """The plan cannot be read; the message is one line that says why."""


def read_plan(path: Path) -> list[dict[str, Any]]:
    """The steps: a JSON list, or an object whose `plan` is one. Raises PlanError.

    `{"$file": "chart.py"}` anywhere in it stands for the text of that file, whose path is relative to the plan's.
    """
    try:
        plan = json.loads(_text(path))
        if isinstance(plan, dict):
            plan = plan.get("plan")
        if not isinstance(plan, list) or not all(isinstance(step, dict) for step in plan):
            raise PlanError(f"{path} holds no list of steps")
        return [_filled(step, path.parent) for step in plan]
    except ValueError as exc:
        raise PlanError(f"{path} is not JSON: {exc}") from exc
    except RecursionError as exc:
        raise PlanError(f"{path} is nested too deeply") from exc


def _filled(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_filled(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {REFERENCE}:
        return _text(folder / str(value[REFERENCE]))
    return {name: _filled(item, folder) for name, item in value.items()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise PlanError(f"cannot read {path}: {reason}") from exc
