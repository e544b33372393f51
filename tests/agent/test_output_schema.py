"""Check of an output against its schema, in a process with limits."""

import errno
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from infra.contract.errors import ExecutorUnavailable, HostExhausted
from worker.agent import output_schema, schema_program
from worker.agent.output_schema import SchemaError, check_schema, first_fault


def doubled(levels: int) -> dict[str, Any]:
    """Return a schema each level of which uses the next one twice."""
    defs = {f"a{i}": {"oneOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**defs, f"a{levels}": {}}}


def overlapping() -> dict[str, Any]:
    """Return a schema that is applied twice to each level of a value."""
    return {"properties": {"a": {"$ref": "#"}}, "patternProperties": {"a": {"$ref": "#"}}}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (doubled(60), {}),
        (overlapping(), nested(60)),
        ({"allOf": [{"pattern": rf"(\w{{200}}|{i}){{40}}"} for i in range(900)]}, ""),
    ],
)
async def test_a_schema_takes_no_more_than_its_time_and_memory(
    monkeypatch: pytest.MonkeyPatch, schema: dict[str, Any], value: Any
) -> None:
    monkeypatch.setattr(output_schema, "CPU_S", 1)
    began = time.process_time()
    with pytest.raises(SchemaError, match="takes more than 1 s, or 256 MiB, to check"):
        await first_fault(schema, value)
    assert time.process_time() - began < 1  # of this process, which works on other runs meanwhile


async def test_the_first_fault_is_named_with_its_place() -> None:
    schema = {"properties": {"a": {"items": {"type": "integer"}}}}
    assert await first_fault(schema, {"a": [1, "x"]}) == 'output.a[1]: "x" is not of type "integer"'
    assert await first_fault(schema, {"a": [1, 2**70, 1.0]}) == ""
    assert await first_fault({"const": "é\u2028"}, "é\u2028") == ""


async def test_a_schema_that_cannot_be_used_is_refused() -> None:
    await check_schema(overlapping())
    for schema in ({"type": "int"}, {"$ref": "https://example.org/a.json"}, {"pattern": "a{1000}{1000}"}):
        with pytest.raises(SchemaError, match=r"not a usable JSON Schema: .+"):
            await check_schema(schema)


async def test_a_value_may_be_nested_as_deeply_as_it_can_be_read() -> None:
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}}}}}
    assert await first_fault(schema, nested(100)) == ""
    for levels in (900, 1500, 100_000):
        assert await first_fault(schema, nested(levels)) in {"", "output: nested too deeply"}


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        ("raise ImportError('no module')", ExecutorUnavailable, "does not work: ImportError: no module"),
        ("raise OSError(28, 'No space left on device')", HostExhausted, "short of disk space"),
        ("raise SystemExit(1)", ExecutorUnavailable, "exit code 1"),
        ("import os; os.kill(os.getpid(), 9)", HostExhausted, "killed by signal 9"),
        ("import os; os.kill(os.getpid(), 15)", HostExhausted, "killed by signal 15"),
        ("import os; exit(os.getsid(0) == os.getpid() and 'own session')", ExecutorUnavailable, "own session"),
    ],
)
async def test_a_program_that_does_not_work_is_no_fault_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "program.py").write_text(program)
    monkeypatch.setattr(output_schema, "_PROGRAM", tmp_path / "program.py")
    with pytest.raises(error, match=message):
        await check_schema({})


async def test_a_program_that_cannot_be_started_is_no_fault_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "run", refused)
    with pytest.raises(HostExhausted):
        await check_schema({})


async def test_the_end_of_memory_is_told_as_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Path(schema_program.__file__).read_text()
    (tmp_path / "program.py").write_text(program.replace("json.load(sys.stdin.buffer)", "bytearray(2**29)"))
    monkeypatch.setattr(output_schema, "_PROGRAM", tmp_path / "program.py")
    with pytest.raises(SchemaError, match="takes more than 2 s, or 256 MiB"):
        await check_schema({})
