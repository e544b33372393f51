"""How data becomes that of events which are never longer than MAX_EVENT_BYTES: cut, or told in several."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from infra.contract.events import Splittable, Truncated

MAX_EVENT_BYTES = 16 * 1024
"""No event is longer than this as UTF-8 JSON, in the form in which the API gives it out."""
DATA_BYTES = MAX_EVENT_BYTES - 512
"""What is left for the data, with room for `seq`, `ts`, `type`, `step` and for the marks of what was cut."""
ELLIPSIS = "…"
_SIDE_BYTES = DATA_BYTES // 4
"""What may be taken beside the text that is divided."""
_DEPTH = 8
_PUNCTUATION_BYTES = 4
_SCALAR_BYTES = 24

_build = msgspec.to_builtins
_encode = msgspec.json.Encoder().encode


def truncate_text(text: str, most_chars: int) -> str:
    """The text, or as much of it as fits into so many characters with an ellipsis at its end."""
    return text if len(text) <= most_chars else f"{text[: most_chars - 1]}{ELLIPSIS}"


def truncate(data: Truncated) -> dict[str, Any]:
    """The data as that of one event: long texts, and what is too much in nested values, end in an ellipsis."""
    built: dict[str, Any] = _build(data)
    if len(_encode(built)) > data.MAX_TEXT_CHARS:
        return _Shortener(data.MAX_TEXT_CHARS, DATA_BYTES).fields(built)
    return built


def split(data: Truncated | Splittable) -> list[dict[str, Any]]:
    """The data as that of one event or, if it may be parted and is too long, of several that follow each other.

    A text is parted between characters, never cut; all parts but the last have `more`.
    """
    built: dict[str, Any] = _build(data)
    if len(_encode(built)) <= data.MAX_TEXT_CHARS:
        return [built]
    if isinstance(data, Truncated):
        return [_Shortener(data.MAX_TEXT_CHARS, DATA_BYTES).fields(built)]
    name = data.SPLIT_FIELD
    value = built.pop(name)
    if isinstance(value, list):
        value = [_Shortener(data.MAX_TEXT_CHARS, _SIDE_BYTES).fields(item) for item in value]
    beside = _Shortener(data.MAX_TEXT_CHARS, _SIDE_BYTES).fields(built)
    found: list[dict[str, Any]] = []
    at = 0
    for piece in _pieces(value, DATA_BYTES - _size(beside)):
        found.append({**beside, **data.place(at), name: piece, "more": True})
        at += len(piece)
    if not data.more:
        del found[-1]["more"]
    return found


def _pieces(value: Sequence[Any], room_bytes: int) -> Iterator[Sequence[Any]]:
    """The value in pieces that fit, halved until they do; an item is not divided."""
    if len(value) < 2 or _size(value) <= room_bytes:
        yield value
    else:
        middle = len(value) // 2
        yield from _pieces(value[:middle], room_bytes)
        yield from _pieces(value[middle:], room_bytes)


class _Shortener:
    """Copies values, with texts cut to `most_chars` and no more than some `left` bytes of JSON in all."""

    def __init__(self, most_chars: int, left: int) -> None:
        self._most_chars = most_chars
        self._left = left

    def fields(self, built: dict[str, Any]) -> dict[str, Any]:
        """An object whose names are ours: all of them stay."""
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
        if size > max(self._left, _SCALAR_BYTES):  # an integer of many digits
            return ELLIPSIS
        self._left -= size
        return value

    def _text(self, text: str) -> str:
        short = truncate_text(text, self._most_chars)
        while (size := _size(short)) > self._left and len(short) > 1:
            short = truncate_text(short, max(1, len(short) * self._left // size))
        self._left -= size
        return short

    def _object(self, value: dict[str, Any], depth: int) -> dict[str, Any]:
        short: dict[str, Any] = {}
        for name, item in value.items():
            if self._left <= 0:
                return {**short, ELLIPSIS: ELLIPSIS}
            shown = self._text(name)
            short[shown] = self._value(item, depth)
        return short

    def _list(self, value: Sequence[Any], depth: int) -> list[Any]:
        short: list[Any] = []
        for item in value:
            if self._left <= 0:
                return [*short, ELLIPSIS]
            short.append(self._value(item, depth))
        return short


def _size(value: object) -> int:
    return len(_encode(value))
