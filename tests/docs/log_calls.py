"""Calls of `infra.logging.log` in the source, found by their syntax."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from tests.docs.pages import ROOT, files

PACKAGES = ("edge_api/", "worker/", "infra/")
FUNCTIONS = {"log", "log_lines.log", "logging.log"}
COMPUTED = {
    "run.*": ("run.start", "run.cancel", "run.retry", "run.resume", "run.message", "run.interrupt"),
}
"""Actions whose names are computed, by the pattern of the f-string."""


@dataclass
class LogAction:
    """Levels and fields of all calls with one action."""

    levels: set[str] = field(default_factory=set)
    fields: set[str | None] = field(default_factory=set)


@cache
def log_actions() -> dict[str, LogAction]:
    """Return all actions that the servers log, by name."""
    found: dict[str, LogAction] = {}
    sources = [path for path in sorted(files()) if path.startswith(PACKAGES) and path.endswith(".py")]
    for path in sources:
        if path == "infra/logging.py":
            continue
        for call in _calls(ast.parse((ROOT / path).read_text())):
            for name in _names(call.args[0]):
                action = found.setdefault(name, LogAction())
                action.levels.add(_level(call))
                # Fields of `**values` have no names here; the page tells where they are explained.
                action.fields |= {keyword.arg for keyword in call.keywords if keyword.arg} - {"level"}
    return found


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in FUNCTIONS:
            yield node


def _names(argument: ast.expr) -> Sequence[str]:
    if isinstance(argument, ast.JoinedStr):
        parts = (str(part.value) if isinstance(part, ast.Constant) else "*" for part in argument.values)
        return COMPUTED["".join(parts)]
    assert isinstance(argument, ast.Constant), f"the action in line {argument.lineno} must be a string"
    return [str(argument.value)]


def _level(call: ast.Call) -> str:
    level = next((keyword.value for keyword in call.keywords if keyword.arg == "level"), None)
    return ast.unparse(level).rpartition(".")[2].lower() if level else "info"
