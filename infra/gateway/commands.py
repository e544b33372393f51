"""From an HTTP request to commands: the JSON form and the path form."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

import msgspec

from infra.gateway.errors import BadRequest

Command = list[bytes]


def _literal(text: str) -> msgspec.Raw:
    """A fraction keeps the digits the client wrote: 1.10 stays 1.10."""
    return msgspec.Raw(text.encode())


_decoder = msgspec.json.Decoder(float_hook=_literal)


def from_json(body: bytes) -> Command:
    """`["SET", "key", 1]`. Raises `BadRequest`."""
    return _command(_decode(body), "the request body")


def many_from_json(body: bytes) -> list[Command]:
    """`[["SET", "key", 1], ["GET", "key"]]`. Raises `BadRequest`."""
    rows = _decode(body)
    if not isinstance(rows, list) or not rows:
        raise BadRequest("ERR the request body must be a non-empty JSON array of commands")
    return [_command(row, f"command {number}") for number, row in enumerate(rows, 1)]


def _decode(body: bytes) -> object:
    try:
        return _decoder.decode(body)
    except (ValueError, RecursionError) as exc:
        raise BadRequest("ERR the request body is not valid JSON") from exc


def _command(value: object, where: str) -> Command:
    if not isinstance(value, list) or not value:
        raise BadRequest(f"ERR {where} must be a non-empty JSON array: a command name and its arguments")
    if not isinstance(value[0], str) or not value[0]:
        raise BadRequest(f"ERR {where} must begin with the name of a command")
    return [_argument(element) for element in value]


def _argument(value: object) -> bytes:
    """Strings as they are; everything else as its JSON text, so numbers are decimal and null is `null`."""
    if isinstance(value, str):
        return value.encode()
    return msgspec.json.encode(value)


def split_path(raw_path: bytes) -> list[bytes]:
    """Segments of a path, still percent-encoded; `/` itself has none."""
    path = raw_path.lstrip(b"/")
    return path.split(b"/") if path else []


def from_path(segments: Sequence[bytes], body: bytes, query: Sequence[tuple[bytes, bytes]]) -> Command:
    """`/set/key?EX=100` with the body as the value: path, then body, then query parameters."""
    command = [unquote_to_bytes(segment) for segment in segments]
    if not command or not command[0]:
        raise BadRequest("ERR the path names no command")
    if body:
        command.append(body)
    for name, value in query:
        command.append(name)
        if value:
            command.append(value)
    return command


def split_query(query_string: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """The parameters in order, and the value of `_token`, which is never one of them."""
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
