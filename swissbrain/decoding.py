"""Decoding of JSON into the types of the client, from any thread."""

import threading
from functools import cache
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_building = threading.Lock()


def from_json(data: bytes | str, kind: type[T]) -> T:
    """Return JSON as a `kind`. Raises DecodeError of msgspec."""
    try:
        decoded: T = _decoder(kind).decode(data)  # type: ignore[arg-type]  # mypy takes `type[T]` for unhashable
    except (UnicodeDecodeError, RecursionError) as exc:
        raise msgspec.DecodeError(str(exc)) from exc
    return decoded


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    # msgspec examines a type when it is first used, and ends the process with a segmentation fault if another thread
    # uses that type, or one that contains it, meanwhile.
    with _building:
        return msgspec.json.Decoder(kind)
