"""Check of a run's output against the JSON Schema that its user gave."""

from collections.abc import Mapping
from typing import Any, NoReturn

import jsonschema_rs
import msgspec

MAX_REASON_CHARS = 500


class SchemaError(Exception):
    """The schema is invalid, refers to another document, or has a pattern that cannot be matched in linear time."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise SchemaError unless the schema can be used."""
    _validator(schema)


def first_fault(schema: Mapping[str, Any], value: object) -> str:
    """Return where and how the value breaks the schema first, for the model; empty if it follows the schema."""
    validator = _validator(schema)
    try:
        error = next(iter(validator.iter_errors(msgspec.to_builtins(value))), None)
    except RecursionError:
        return "output: nested too deeply"
    if error is None:
        return ""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    return f"output{place}: {error.message}"[:MAX_REASON_CHARS]


def _validator(schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
    try:
        # The regular expressions of a user must not occupy the event loop of all runs, and its references must not
        # read files of the host or ask servers.
        return jsonschema_rs.validator_for(
            msgspec.to_builtins(schema), pattern_options=jsonschema_rs.RegexOptions(), retriever=_refuse
        )
    except (jsonschema_rs.ValidationError, ValueError, RecursionError) as exc:
        reason = str(getattr(exc, "message", exc))[:MAX_REASON_CHARS]
        raise SchemaError(f"`output_schema` is not a usable JSON Schema: {reason}") from None


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"'{uri}' is another document; a schema must be complete")
