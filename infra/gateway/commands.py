"""Parse an HTTP request into commands: the JSON form and the path form."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

import msgspec

from infra.gateway.errors import MalformedRequest

Command = list[bytes]


def _float_text(text: str) -> msgspec.Raw:
    # Keep the digits as sent: a conversion to float would turn 1.10 into 1.1.
    return msgspec.Raw(text.encode())


_decoder = msgspec.json.Decoder(float_hook=_float_text)


def from_json(body: bytes) -> Command:
    """Parse `["SET", "key", 1]`. Raises `MalformedRequest`."""
    return _command(_decode(body), "the request body")


def batch_from_json(body: bytes) -> list[Command]:
    """Parse `[["SET", "key", 1], ["GET", "key"]]`. Raises `MalformedRequest`."""
    rows = _decode(body)
    if not isinstance(rows, list) or not rows:
        raise MalformedRequest("ERR the request body must be a non-empty JSON array of commands")
    return [_command(row, f"command {number}") for number, row in enumerate(rows, 1)]


def _decode(body: bytes) -> object:
    try:
        return _decoder.decode(body)
    except (ValueError, RecursionError) as exc:
        raise MalformedRequest("ERR the request body is not valid JSON") from exc


def _command(value: object, where: str) -> Command:
    if not isinstance(value, list) or not value:
        raise MalformedRequest(f"ERR {where} must be a non-empty JSON array: a command name and its arguments")
    if not isinstance(value[0], str) or not value[0]:
        raise MalformedRequest(f"ERR {where} must begin with the name of a command")
    return [_argument(element) for element in value]


def _argument(value: object) -> bytes:
    """Return a string as it is, anything else as its JSON text: numbers are decimal, null is `null`."""
    if isinstance(value, str):
        return value.encode()
    return msgspec.json.encode(value)


def split_path(raw_path: bytes) -> list[bytes]:
    """Return the segments of a path, still percent-encoded; `/` has none."""
    path = raw_path.lstrip(b"/")
    return path.split(b"/") if path else []


def from_path(segments: Sequence[bytes], body: bytes, query: Sequence[tuple[bytes, bytes]]) -> Command:
    """Parse `/set/key?EX=100` with the value as body: path segments, then body, then query parameters.

    Raises `MalformedRequest`.
    """
    command = [unquote_to_bytes(segment) for segment in segments]
    if not command or not command[0]:
        raise MalformedRequest("ERR the path names no command")
    if body:
        command.append(body)
    for name, value in query:
        command.append(name)
        if value:
            command.append(value)
    return command


def split_query(query_string: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """Return the parameters in order without `_token`, and the value of `_token` (None if it is absent)."""
    token: bytes | None = None
    parameters: list[tuple[bytes, bytes]] = []
    for part in query_string.split(b"&"):
        if not part:
            continue
        name, _, value = (unquote_to_bytes(text) for text in part.replace(b"+", b" ").partition(b"="))
        if name == b"_token":
            token = value
        else:
            parameters.append((name, value))
    return parameters, token
