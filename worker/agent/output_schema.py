"""Check of a run's output against the JSON Schema that its user gave.

Both are the user's, or a model's, and a few references or patterns can ask for any amount of time and memory. So a
process of its own checks them, within limits: the worker has runs of others.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from infra.contract.errors import ExecutorUnavailable, HostExhausted
from infra.host_limits import exhaustion_in, translate_exhaustion

CPU_S = 2
MEMORY_BYTES = 256 * 1024 * 1024
MAX_REASON_CHARS = 500
_TOO_MUCH = {3, -signal.SIGXCPU, -signal.SIGABRT, -signal.SIGSEGV}
"""Exit codes of the program at its limits: without memory, it exits with 3 or aborts, and its stack may overflow."""
_WALL_S = 60.0
_PROGRAM = Path(__file__).with_name("schema_program.py")
_threads = ThreadPoolExecutor(2, "schema")  # of their own: the others serve all runs


class SchemaError(Exception):
    """The schema is invalid, refers to another document, has a pattern that cannot be matched in linear time, or takes
    too much time or memory."""


class _Verdict(msgspec.Struct):
    refusal: str
    fault: str


async def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise SchemaError unless the schema can be used. Raises HostExhausted, ExecutorUnavailable."""
    await _ask({"schema": schema})


async def first_fault(schema: Mapping[str, Any], value: object) -> str:
    """Return where and how the value breaks the schema first, for the model; empty if it follows the schema.

    Raises SchemaError, HostExhausted, ExecutorUnavailable.
    """
    return (await _ask({"schema": schema, "value": value})).fault


async def _ask(request: Mapping[str, Any]) -> _Verdict:
    try:
        content = msgspec.json.encode(request)
    except RecursionError:
        return _Verdict(refusal="", fault="output: nested too deeply")
    answer = await asyncio.get_running_loop().run_in_executor(_threads, _run, content)
    if not answer:
        raise SchemaError(f"`output_schema` takes more than {CPU_S} s, or {MEMORY_BYTES >> 20} MiB, to check")
    verdict = msgspec.json.decode(answer, type=_Verdict)
    if verdict.refusal:
        raise SchemaError(f"`output_schema` is not a usable JSON Schema: {verdict.refusal}")
    return verdict


def _run(content: bytes) -> bytes:
    """Return what the program answers; nothing if it took too much.

    Raises HostExhausted, and ExecutorUnavailable if the program does not work on this host: neither is the fault of the
    run.
    """
    command = [sys.executable, "-P", str(_PROGRAM), str(CPU_S), str(MEMORY_BYTES)]
    try:
        with translate_exhaustion():
            # In a session of its own, because Ctrl-C ends all processes of a terminal, and a worker drains then.
            ended = subprocess.run(
                command, input=content, capture_output=True, timeout=_WALL_S, check=False, start_new_session=True
            )
    except subprocess.TimeoutExpired:
        raise HostExhausted(f"the host is too busy: the check of an output waited {_WALL_S:g} s") from None
    if ended.returncode in _TOO_MUCH:
        return b""
    if ended.returncode < 0:  # by the kernel, when the host has no memory left, or by an operator
        raise HostExhausted(f"the check of an output was killed by signal {-ended.returncode}")
    if ended.returncode:
        errors = ended.stderr.decode(errors="replace")
        if short := exhaustion_in(errors):
            raise short
        reason = (errors.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
        raise ExecutorUnavailable(f"the program that checks outputs does not work: {reason[:MAX_REASON_CHARS]}")
    return ended.stdout
