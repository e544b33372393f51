"""Arguments of a call: from the JSON text of a model to typed arguments, or to a text that says what is wrong."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from infra.contract.errors import InvalidInput
from infra.contract.llm import MAX_TEXT_BYTES
from infra.contract.tool_args import ToolArgs
from infra.contract.validation import invalid_input, json_number
from worker.agent.schemas import usage_of
from worker.agent.tool_text import named

MAX_DEPTH = 32
"""Deepest nesting of arguments."""
_MAX_DIGITS = 18
_NEARBY_CHARS = 30
_ROOT = "$"


class BadArguments(Exception):
    """Arguments that cannot be used; the message is for the model."""


def parse(kind: type[ToolArgs], text: str) -> tuple[ToolArgs, dict[str, Any]]:
    """Return the typed arguments, and the JSON object before its conversion. Raises BadArguments.

    Empty text stands for an empty object, because some servers send it for calls without arguments.
    """
    raw = _object(text)
    try:
        typed = msgspec.convert(raw, kind)
    except msgspec.ValidationError as exc:
        raise _bad_field(invalid_input(exc, kind, at=_ROOT), kind) from exc
    try:
        typed.check(_ROOT)
    except InvalidInput as exc:
        raise _bad_field(exc, kind) from exc
    return typed, raw


def _bad_field(exc: InvalidInput, kind: type[ToolArgs]) -> BadArguments:
    field = named(exc.field.removeprefix(_ROOT).removeprefix("."))
    problem = f"{field}: {named(str(exc), 400)}" if field else named(str(exc), 400)
    return BadArguments(f"{problem}. The arguments are {usage_of(kind) or 'none'}")


def _object(text: str) -> dict[str, Any]:
    if len(text) > MAX_TEXT_BYTES:
        raise BadArguments(f"the arguments have {len(text)} characters; allowed are {MAX_TEXT_BYTES}")
    if not text.strip():
        return {}
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as exc:
        near = named(text[max(0, exc.pos - _NEARBY_CHARS) : exc.pos + _NEARBY_CHARS])
        raise BadArguments(
            f"the arguments are not valid JSON: {exc.msg} at character {exc.pos} of {len(text)}, near {near!r}"
        ) from exc
    except RecursionError:
        raise BadArguments(f"the arguments are nested too deeply; allowed are {MAX_DEPTH} levels") from None
    if not isinstance(value, dict):
        raise BadArguments(f"the arguments must be one JSON object, such as {{…}}, not {_kind(value)}")
    for part in texts(value):
        _check_text(part)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise BadArguments(f"the field '{named(name)}' is given twice in one object")
        made[name] = value
    return made


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise BadArguments(f"the number {named(text, 30)} has more than {_MAX_DIGITS} digits; give it as a string")
    return int(text)


def _finite(text: str) -> float:
    try:
        return json_number(text)
    except ValueError:
        raise BadArguments(f"the number {named(text, 30)} is too large") from None


def _constant(text: str) -> float:
    raise BadArguments(f"{text} is not a JSON number")


def texts(value: object) -> Iterator[str]:
    """Yield every text and every name of a JSON value. Raises BadArguments below MAX_DEPTH levels."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                yield item
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
        level = below
    if level:
        raise BadArguments(f"the arguments are nested too deeply; allowed are {MAX_DEPTH} levels")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        escaped = ascii(text[exc.start])
        message = f"a text holds half of a surrogate pair ({escaped}), which is not a character"
        raise BadArguments(message) from exc


def _kind(value: object) -> str:
    names = {str: "a string", list: "a list", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
