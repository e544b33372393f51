"""Steps that run a program: `code.python(Path("report.py"))` or `code.python("print(1)")`.

A Path is a file of this machine, which is read now; text is the program itself.
"""

from collections.abc import Sequence
from pathlib import Path

from swissbrain.models import PlanStep
from swissbrain.plan import step


def python(
    source: Path | str,
    *,
    timeout_s: float | None = None,
    network: Sequence[str] | None = None,
    name: str | None = None,
) -> PlanStep:
    """Return the step that runs a Python program; it is killed after `timeout_s` seconds. Raises OSError too.

    `network`: hosts that the program may reach, as `host:port` or `*.example.org:443`, within what the operator allows.
    """
    return _code("python", source, timeout_s, network, name)


def node(
    source: Path | str,
    *,
    timeout_s: float | None = None,
    network: Sequence[str] | None = None,
    name: str | None = None,
) -> PlanStep:
    """Return the step that runs a JavaScript program with Node.js, as `python` does for Python."""
    return _code("node", source, timeout_s, network, name)


def bash(
    source: Path | str,
    *,
    timeout_s: float | None = None,
    network: Sequence[str] | None = None,
    name: str | None = None,
) -> PlanStep:
    """Return the step that runs a Bash script, as `python` does for a Python program."""
    return _code("bash", source, timeout_s, network, name)


def _code(
    language: str, source: Path | str, timeout_s: float | None, network: Sequence[str] | None, name: str | None
) -> PlanStep:
    if isinstance(source, Path):
        name = source.name if name is None else name
        source = source.read_bytes().decode("utf-8-sig")  # bytes, because reading text would change line ends
    hosts = [*network] if network else None
    return step("code", name, language=language, source=source, timeout_s=timeout_s, network=hosts)
