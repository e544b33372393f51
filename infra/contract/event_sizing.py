"""Fits event data into MAX_EVENT_BYTES: truncates texts, or splits one event into several."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from infra.contract.events import RunWaiting, Splittable, Truncated
from infra.contract.requests import OpenRequest

MAX_EVENT_BYTES = 16 * 1024
"""Maximum size of an event as UTF-8 JSON, in the form in which the API sends it."""
DATA_BYTES = MAX_EVENT_BYTES - 512
"""Maximum size of the data; the rest is room for `seq`, `ts`, `type`, `step` and the ellipses of truncated texts."""
ELLIPSIS = "…"
_SIDE_BYTES = DATA_BYTES // 4
"""Maximum size of the fields beside the text that is split."""
_REQUESTS_BYTES = 2 * DATA_BYTES // 5
"""Maximum size of all requests of `run.waiting`; the question of the first is in the event twice."""
_SHORTENED = ("question", "choices", "args")
_DEPTH = 8
_PUNCTUATION_BYTES = 4
_SCALAR_BYTES = 24

_build = msgspec.to_builtins
_encode = msgspec.json.Encoder().encode


def truncate_text(text: str, max_chars: int) -> str:
    """Return the text; a longer one is truncated to `max_chars` characters, the last of them an ellipsis."""
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}{ELLIPSIS}"


def truncate(data: Truncated) -> dict[str, Any]:
    """Return the data of one event; long texts and oversized nested values end in an ellipsis."""
    built: dict[str, Any] = _build(data)
    if len(_encode(built)) > data.MAX_TEXT_CHARS:
        return _Truncator(data.MAX_TEXT_CHARS, DATA_BYTES).fields(built)
    return built


def fit_requests(requests: Sequence[OpenRequest]) -> list[dict[str, Any]]:
    """Return the requests of a waiting run as built-in values that fit into one event together.

    Questions, choices and arguments are truncated, equally for each request; ids and expiries are not. `truncated` is
    set then: nobody must take the beginning of a command for the whole.
    """
    room = _REQUESTS_BYTES // max(1, len(requests))
    fitted = []
    for request in requests:
        built: dict[str, Any] = _build(request)
        if _size(built) > room:
            fixed = {name: value for name, value in built.items() if name not in _SHORTENED} | {"truncated": True}
            long = {name: built[name] for name in _SHORTENED if name in built}
            built = fixed | _Truncator(RunWaiting.MAX_TEXT_CHARS, room - _size(fixed)).fields(long)
        fitted.append(built)
    return fitted


def split(data: Truncated | Splittable) -> list[dict[str, Any]]:
    """Return the data of one event or, if it is Splittable and too long, of several consecutive events.

    A text is split between characters, and nothing of it is lost; all parts but the last have `more`.
    """
    built: dict[str, Any] = _build(data)
    if len(_encode(built)) <= data.MAX_TEXT_CHARS:
        return [built]
    if isinstance(data, Truncated):
        return [_Truncator(data.MAX_TEXT_CHARS, DATA_BYTES).fields(built)]
    name = data.SPLIT_FIELD
    value = built.pop(name)
    for field in data.position(0):
        del built[field]
    if isinstance(value, list):
        value = [_Truncator(data.MAX_TEXT_CHARS, _SIDE_BYTES).fields(item) for item in value]
    beside = _Truncator(data.MAX_TEXT_CHARS, _SIDE_BYTES).fields(built)
    parts: list[dict[str, Any]] = []
    at = 0
    for piece in _pieces(value, DATA_BYTES - _size(beside)):
        parts.append({**beside, **data.position(at), name: piece, "more": True})
        at += len(piece)
    if not data.more:
        del parts[-1]["more"]
    return parts


def _pieces(value: Sequence[Any], room_bytes: int) -> Iterator[Sequence[Any]]:
    """Yield the value in pieces that fit, by halving; a single item is never divided."""
    if len(value) < 2 or _size(value) <= room_bytes:
        yield value
    else:
        middle = len(value) // 2
        yield from _pieces(value[:middle], room_bytes)
        yield from _pieces(value[middle:], room_bytes)


class _Truncator:
    """Copies values with texts truncated to `max_chars`, and with about `left` bytes of JSON in total."""

    def __init__(self, max_chars: int, left: int) -> None:
        self._max_chars = max_chars
        self._left = left

    def fields(self, built: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of an event's data: its field names are part of the contract, so every name is kept."""
        return {name: self._value(value, 0) for name, value in built.items()}

    def _value(self, value: Any, depth: int) -> Any:
        self._left -= _PUNCTUATION_BYTES
        if isinstance(value, str):
            return self._text(value)
        if not isinstance(value, dict | list | tuple):
            return self._scalar(value)
        if depth == _DEPTH:
            return ELLIPSIS
        if isinstance(value, dict):
            return self._object(value, depth + 1)
        return self._list(value, depth + 1)

    def _scalar(self, value: Any) -> Any:
        size = _size(value)
        # Only an integer with many digits is longer than _SCALAR_BYTES.
        if size > max(self._left, _SCALAR_BYTES):
            return ELLIPSIS
        self._left -= size
        return value

    def _text(self, text: str) -> str:
        short = truncate_text(text, self._max_chars)
        while (size := _size(short)) > self._left and len(short) > 1:
            short = truncate_text(short, max(1, len(short) * self._left // size))
        self._left -= size
        return short

    def _object(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        copy: dict[str, Any] = {}
        for name, item in value.items():
            if self._left <= 0:
                return {**copy, ELLIPSIS: ELLIPSIS}
            shown = self._text(name)
            copy[shown] = self._value(item, depth)
        return copy

    def _list(self, value: Sequence[Any], depth: int) -> list[Any]:
        copy: list[Any] = []
        for item in value:
            if self._left <= 0:
                return [*copy, ELLIPSIS]
            copy.append(self._value(item, depth))
        return copy


def _size(value: object) -> int:
    return len(_encode(value))
