"""Encode replies of Redis as response bodies."""

from __future__ import annotations

import itertools
import secrets
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec

from infra.gateway.errors import MalformedRequest
from infra.gateway.resp import ErrorReply, RespReply

Encode = Callable[[bytes], str]
"""Encoding of a string in a result."""

_encode_json = msgspec.json.Encoder().encode
_process = secrets.token_hex(4)
_response_numbers = itertools.count(1)


def as_text(value: bytes) -> str:
    """Decode UTF-8; invalid bytes become U+FFFD."""
    return value.decode("utf-8", "replace")


def as_base64(value: bytes) -> str:
    """Encode in base64, except `OK`, which Upstash leaves as it is."""
    return "OK" if value == b"OK" else b64encode(value).decode("ascii")


def sync_token() -> bytes:
    """Return a value of the header `Upstash-Sync-Token` that differs in every response."""
    # Clients send the token back, but the gateway ignores it: it has a single Redis, which is always consistent.
    return f"{_process}-{next(_response_numbers)}".encode()


def encoder_for(header: bytes | None) -> Encode:
    """Return the encoding that the header `Upstash-Encoding` asks for. Raises `MalformedRequest`."""
    if header is None:
        return as_text
    if header.strip().lower() == b"base64":
        return as_base64
    raise MalformedRequest("ERR Upstash-Encoding must be base64")


def wants_resp2(header: bytes | None, encoding: bytes | None) -> bool:
    """Return True if `Upstash-Response-Format` asks for RESP2.

    Raises `MalformedRequest` for another format, or if there is an `Upstash-Encoding` as well.
    """
    if header is None or header.strip().lower() == b"json":
        return False
    if header.strip().lower() != b"resp2":
        raise MalformedRequest("ERR Upstash-Response-Format must be json or resp2")
    if encoding is not None:
        raise MalformedRequest("ERR Upstash-Encoding cannot be combined with Upstash-Response-Format: resp2")
    return True


def envelope(reply: RespReply, encode: Encode) -> dict[str, Any]:
    """Return `{"result": …}` or `{"error": text}`."""
    if isinstance(reply, ErrorReply):
        return {"error": str(reply)}
    return {"result": _plain(reply, encode)}


def _plain(reply: RespReply, encode: Encode) -> Any:
    if isinstance(reply, bytes):
        return encode(reply)
    if isinstance(reply, list):
        return [_plain(element, encode) for element in reply]
    if isinstance(reply, ErrorReply):  # inside an array, as a script may return it
        return encode(str(reply).encode())
    return reply


def body(content: object) -> bytes:
    """Return `content` as JSON."""
    return _encode_json(content)


def error_body(text: str) -> bytes:
    """Return `{"error": text}` as JSON."""
    return _encode_json({"error": text})


def resp2_error(text: str) -> bytes:
    """Return a RESP2 error reply; line ends in the text become spaces, because they would end the reply."""
    line = text.replace("\r", " ").replace("\n", " ")
    return b"-" + line.encode() + b"\r\n"
