"""Program that reads a JSON Schema, and checks a value against it, in a process of its own: both may take all the time
and memory that there is. Called by `worker.agent.output_schema`; nothing else imports it.

Arguments: limits of processor time (s) and memory (bytes). Input: a JSON object with `schema` and `value`, or without
a value. Output: a JSON object with `refusal`, why the schema cannot be used, and `fault`, where the value breaks it.
Exit code 3 if there is no memory left.
"""

import json
import resource
import sys
from contextlib import suppress
from typing import Any, NoReturn

import jsonschema_rs

MAX_REASON_CHARS = 500
TOO_DEEP = "output: nested too deeply"


def verdict_on(request: dict[str, Any]) -> tuple[str, str]:
    """Return why the schema cannot be used, and where and how the value breaks it first; each is empty if not so."""
    try:
        validator = _validator(request["schema"])
    except (jsonschema_rs.ValidationError, ValueError, RecursionError) as exc:
        return str(getattr(exc, "message", exc))[:MAX_REASON_CHARS] or type(exc).__name__, ""
    return "", _first_fault(validator, request["value"]) if "value" in request else ""


def _first_fault(validator: jsonschema_rs.Validator, value: object) -> str:
    try:
        error = next(iter(validator.iter_errors(value)), None)
    except RecursionError:
        return TOO_DEEP
    if error is None:
        return ""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    return f"output{place}: {error.message}"[:MAX_REASON_CHARS]


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    # Patterns are matched in linear time, and references must not read files of the host or ask servers.
    return jsonschema_rs.validator_for(schema, pattern_options=jsonschema_rs.RegexOptions(), retriever=_refuse)


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"'{uri}' is another document; a schema must be complete")


def main() -> None:
    """Answer the request on standard input."""
    # If memory runs out, the kernel must kill this process before it kills the worker.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("800")
    # One byte of a core dump: none is made. With 0 the kernel would start the program for dumps that the host may have.
    limits = ((resource.RLIMIT_CPU, sys.argv[1]), (resource.RLIMIT_AS, sys.argv[2]), (resource.RLIMIT_CORE, 1))
    for limit, value in limits:
        _, hard = resource.getrlimit(limit)
        # The hard limit stays: at that of processor time the signal would be SIGKILL, as where memory runs out.
        resource.setrlimit(limit, (int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard), hard))
    try:
        refusal, fault = verdict_on(json.load(sys.stdin.buffer))
    except RecursionError:
        refusal, fault = "", TOO_DEEP
    json.dump({"refusal": refusal, "fault": fault}, sys.stdout)


if __name__ == "__main__":
    try:
        main()
    except MemoryError:
        sys.exit(3)
