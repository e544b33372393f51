"""Files of environment variables as systemd reads them (`EnvironmentFile`)."""

import re
from collections.abc import Mapping
from pathlib import Path

from deploy.vm.machine import UsageError

_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@,+%~-]*")


def parse(text: str, name: str = "the file") -> dict[str, str]:
    """Return the variables. Raises UsageError for what systemd would ignore or read in another way."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise UsageError(f"{name}, line {number}: must be NAME=VALUE")
        value = match[2].strip()
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
        inner = value[1:-1] if quoted else value
        # systemd also knows escapes and continued lines; no setting of ours needs them.
        if "\\" in inner or (quoted and value[0] in inner) or (not quoted and value[:1] in ("'", '"')):
            raise UsageError(f"{name}, line {number}: the value of {match[1]} must be plain, or stand in single quotes")
        found[match[1]] = inner
    return found


def read(path: Path) -> dict[str, str]:
    """Return the variables of a file, none if it does not exist. Raises UsageError, OSError."""
    return parse(path.read_text(), str(path)) if path.exists() else {}


def assignment(name: str, value: str) -> str:
    """Return a variable as it is written into a file. Raises UsageError."""
    if _PLAIN.fullmatch(value):
        return f"{name}={value}"
    if "'" in value or "\\" in value or not value.isprintable():
        raise UsageError(f"{name} contains a quote, a backslash or a control character")
    return f"{name}='{value}'"


def text_of(variables: Mapping[str, str], comment: str) -> str:
    """Return the text of a file."""
    return "".join([f"# {comment}\n", *(f"{assignment(*each)}\n" for each in variables.items())])


def with_values(text: str, values: Mapping[str, str]) -> str:
    """Return the text of a file with other values.

    A value takes the line of its variable, or the comment `#NAME=`, or else is added at the end.
    """
    lines = text.splitlines()
    for name, value in values.items():
        line = assignment(name, value)
        places = [number for number, each in enumerate(lines) if each.lstrip("# ").startswith(f"{name}=")]
        if places:
            lines[places[0]] = line
        else:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)
