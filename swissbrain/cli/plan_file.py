"""Values in JSON or YAML files; plans: steps in the format of the API, whose long texts may be in separate files."""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import yaml

from swissbrain.cli.errors import CommandError

REFERENCE = "$file"
MAX_BYTES = 1024 * 1024
"""Limit for a plan and for each file that it names: more than the API accepts in one request."""
STDIN = Path("-")
_BOM = "\ufeff"


class PlanError(CommandError):
    """File that cannot be read, or that holds no plan."""


class _PlanLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Loader of YAML with the values of JSON: `no`, `010`, `1:30` and dates are text. Aliases are refused.

    A few aliases of aliases would make a plan of any size.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node that is no alias. Raises YAMLError."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Return a mapping whose keys differ; the library would keep the last one of equal keys. Raises YAMLError."""
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if (key.tag, str(key.value)) in seen:
                raise yaml.MarkedYAMLError(problem=_twice(key.value), problem_mark=key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


for _kind, _form, _first in (
    ("null", r"~|null|", "~n\0"),
    ("bool", r"true|false", "tf"),
    ("int", r"-?(?:0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|nan)", "-+.0123456789"),
):
    # An empty value has no first character; the library spells that as an empty text.
    _PlanLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_form})$"), [char.strip("\0") for char in _first]
    )


def read_plan(path: Path) -> list[dict[str, Any]]:
    """Return the steps of a plan: a list, or an object whose `plan` is one. Raises PlanError.

    The path `-` means standard input. `{"$file": "chart.py"}` at any depth is replaced by the text of that file, with
    its line ends; its path is relative to the plan.
    """
    plan = read_value(path)
    if isinstance(plan, dict):
        plan = plan.get("plan")
    if not isinstance(plan, list) or not all(isinstance(step, dict) for step in plan):
        raise PlanError(f"{_name(path)} holds no list of steps")
    try:
        return [_resolve(step, path.parent) for step in plan]
    except RecursionError as exc:
        raise PlanError(f"{_name(path)} is nested too deeply") from exc


def read_value(path: Path) -> Any:
    """Return the value in a JSON or YAML file; the path `-` means standard input. Raises PlanError."""
    try:
        # Editors on Windows begin a file with a byte order mark, which is not part of the value.
        return _parse(read_text(path).removeprefix(_BOM), path, _name(path))
    except RecursionError as exc:
        raise PlanError(f"{_name(path)} is nested too deeply") from exc


def _name(path: Path) -> str:
    return "standard input" if path == STDIN else str(path)


def _parse(text: str, path: Path, name: str) -> Any:
    is_yaml = path.suffix.lower() in {".yaml", ".yml"}
    # YAML contains JSON, but its messages about JSON are of no help, and standard input has no ending.
    if not is_yaml and (path != STDIN or text.lstrip()[:1] in {"{", "["}):
        try:
            return json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_mapping)
        except ValueError as exc:
            raise PlanError(f"{name} is not JSON: {exc}") from exc
    try:
        return _plain(yaml.load(text, _PlanLoader), "$")  # noqa: S506 - derived from SafeLoader
    except (yaml.YAMLError, ValueError) as exc:
        raise PlanError(f"{name} is not YAML: {' '.join(str(exc).split())}") from exc
    except (LookupError, AttributeError) as exc:  # of the library, such as for `!!bool maybe` and `!!timestamp now`
        raise PlanError(f"{name} is not YAML: a value does not have the form that its tag (!!…) says") from exc


def _plain(value: Any, at: str) -> Any:
    """Return a value of YAML that JSON has as well. Raises ValueError that names the place of any other."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} of {at} is not text")  # noqa: TRY004 - a fault of the file
        return {key: _plain(item, f"{at}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{at}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{at} is no number of JSON")
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"{at} has the type {type(value).__name__}, which JSON does not have")
    return value


def _resolve(value: Any, folder: Path) -> Any:
    """Return the value with all references to files replaced."""
    if isinstance(value, list):
        return [_resolve(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    # Exactly one key: an argument that has a key of this name among others is data.
    if value.keys() == {REFERENCE}:
        if not isinstance(value[REFERENCE], str):
            raise PlanError(f"{REFERENCE} is {json.dumps(value[REFERENCE])[:40]}, and not the path of a file")
        return _file_text(folder / value[REFERENCE])
    return {name: _resolve(item, folder) for name, item in value.items()}


def read_text(path: Path) -> str:
    """Return the text of a file, or of standard input, with its line ends. Raises PlanError."""
    if path != STDIN:
        return _file_text(path)
    try:
        return _text(sys.stdin.buffer.read(MAX_BYTES + 1))
    except (OSError, ValueError) as exc:
        raise PlanError(f"cannot read standard input: {_reason(exc)}") from exc


def _file_text(path: Path) -> str:
    try:
        # Bytes, because reading text would turn each line end into a line feed.
        with path.open("rb") as file:
            return _text(file.read(MAX_BYTES + 1))
    except (OSError, ValueError) as exc:
        raise PlanError(f"cannot read {path}: {_reason(exc)}") from exc


def _text(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes; --file sends large files")
    return content.decode("utf-8")


def _reason(exc: OSError | ValueError) -> str:
    if isinstance(exc, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return str(exc.strerror) if isinstance(exc, OSError) else str(exc)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number of JSON")


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(_twice(key))
        mapping[key] = value
    return mapping


def _twice(key: object) -> str:
    return f"the key {str(key)[:40]!r} is there twice in one mapping"


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number
