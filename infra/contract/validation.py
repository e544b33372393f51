"""Numbers and depth of JSON, and messages for values that msgspec rejects: the value, its place, the allowed values."""

import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec
from msgspec import inspect

from infra.contract.errors import InvalidInput

_MEMBER = re.compile(r"Object (?:contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
_CHOICE = re.compile(r"Invalid (?:enum )?value .*|Object contains unknown field .*", re.DOTALL)
_SEGMENT = re.compile(r"\.(?P<name>\w+)|\[[^\]]*\]")
_MOST_SHOWN = 300
_LARGEST_WRITTEN_OUT = 1e21  # JavaScript writes whole numbers below this size without an exponent


def json_number(text: str) -> float:
    """Return a JSON number with a point or an exponent, as an int if it is whole. Raises ValueError beyond a double.

    JSON has one kind of number, and clients and models that know only doubles write 4 as `4.0`.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("Number out of range")
    return int(number) if number.is_integer() and abs(number) < _LARGEST_WRITTEN_OUT else number


def is_deeper(value: Any, levels: int) -> bool:
    """Return whether a JSON value has more than this number of objects and arrays within each other, with itself."""
    level = [value] if isinstance(value, dict | list) else []
    while level and levels:
        items = chain.from_iterable(each.values() if isinstance(each, dict) else each for each in level)
        level = [item for item in items if isinstance(item, dict | list)]
        levels -= 1
    return bool(level)


def invalid_input(exc: msgspec.ValidationError, kind: Any, *, at: str) -> InvalidInput:
    """Return the error for a value of type `kind` that msgspec rejected; its field is the path below `at`.

    An unknown or missing field is named in the path; for an invalid choice the message lists the allowed values.
    """
    message, _, where = str(exc).partition(" - at ")
    path = where.removeprefix("`key` in ").strip("`").removeprefix("$")
    allowed = list(dict.fromkeys(_allowed(inspect.type_info(kind), path))) if _CHOICE.fullmatch(message) else []
    member = _MEMBER.fullmatch(message)
    field = f"{at}{path}.{_cut(member['name'])}" if member else f"{at}{path}"
    return InvalidInput(f"{_cut(message)}; allowed are {', '.join(allowed)}" if allowed else _cut(message), field)


def _cut(text: str) -> str:
    """Return a text that may repeat a name or a value of any length, cut to what a message is for."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _allowed(info: inspect.Type, path: str) -> Iterator[str]:
    """Yield the values, or the names of the fields, that a type allows at a path."""
    if isinstance(info, inspect.Metadata):
        yield from _allowed(info.type, path)
    elif isinstance(info, inspect.UnionType):
        structs = [member for member in info.types if isinstance(member, inspect.StructType)]
        # With several structs the intended one is unknown, so their fields are not listed together.
        for member in info.types if path or len(structs) < 2 else ():
            yield from _allowed(member, path)
    elif segment := _SEGMENT.match(path):
        for child in _children(info, segment["name"]):
            yield from _allowed(child, path[segment.end() :])
    elif isinstance(info, inspect.StructType):
        yield from (field.encode_name for field in info.fields)
    elif isinstance(info, inspect.EnumType):
        yield from (str(member.value) for member in info.cls)
    elif isinstance(info, inspect.LiteralType):
        yield from map(str, info.values)


def _children(info: inspect.Type, name: str | None) -> Iterator[inspect.Type]:
    if isinstance(info, inspect.StructType):
        if name == info.tag_field:
            yield inspect.LiteralType((info.tag,))
        yield from (field.type for field in info.fields if field.encode_name == name)
    elif isinstance(info, inspect.ListType):
        yield info.item_type
    elif isinstance(info, inspect.DictType):
        yield info.value_type
