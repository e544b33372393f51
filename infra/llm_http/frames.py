"""JSON of an answer: frames of a stream, and the values in them."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from infra.llm_http.failures import NOT_JSON, TryFailed


class FrameDecoder:
    """Decoder of the frames of one answer.

    Some endpoints split a character outside of the Basic Multilingual Plane between two frames, one half of its
    surrogate pair in each, or write numbers as `NaN`. Neither is JSON to msgspec, but the reply is whole all the same.
    """

    def __init__(self) -> None:
        self._half = ""

    def decode(self, data: bytes) -> Mapping[str, Any]:
        """Return a frame. Raises TryFailed."""
        try:
            frame = msgspec.json.decode(data)
        except NOT_JSON:
            frame = self._lenient(data)
        if not isinstance(frame, dict):
            raise TryFailed("the answer contains something else than JSON objects")
        return frame

    def _lenient(self, data: bytes) -> Any:
        try:
            return self._joined(json.loads(data.decode()))
        except (ValueError, RecursionError):
            raise TryFailed("the answer contains something else than JSON") from None

    def _joined(self, value: Any) -> Any:
        """Return a value whose strings have whole characters; a half at the end of one is kept for the next one."""
        if isinstance(value, dict):
            return {self._joined(name): self._joined(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._joined(item) for item in value]
        if not isinstance(value, str) or not value:
            return value
        if "\udc00" <= value[0] <= "\udfff":
            value, self._half = self._half + value, ""
        if "\ud800" <= value[-1] <= "\udbff":
            value, self._half = value[:-1], value[-1]
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def object_of(value: Any) -> Mapping[str, Any]:
    """Return an object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def text_of(value: Any) -> str:
    """Return a text, or a number as text; empty for anything else."""
    if isinstance(value, bool):
        return ""
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def content_of(value: Any) -> str:
    """Return the text of a content: a string, or a list of parts with the type `text` and others."""
    if isinstance(value, list):
        return "".join(
            text_of(part.get("text")) for part in value if isinstance(part, dict) and part.get("type") == "text"
        )
    return text_of(value)
