"""From replies to response bodies."""

from __future__ import annotations

import itertools
import secrets
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec

from infra.gateway.errors import BadRequest
from infra.gateway.resp import ErrorReply, Reply

Encode = Callable[[bytes], str]
"""What becomes of a string in a result."""

_encode_json = msgspec.json.Encoder().encode
_process = secrets.token_hex(4)
_answers = itertools.count(1)


def as_text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def as_base64(value: bytes) -> str:
    return "OK" if value == b"OK" else b64encode(value).decode("ascii")


def sync_token() -> bytes:
    """Differs on every answer; one Redis behind the gateway is consistent anyway, so nobody has to read it back."""
    return f"{_process}-{next(_answers)}".encode()


def encoder_for(header: bytes | None) -> Encode:
    if header is None:
        return as_text
    if header.strip().lower() == b"base64":
        return as_base64
    raise BadRequest("ERR Upstash-Encoding must be base64")


def wants_resp2(header: bytes | None, encoding: bytes | None) -> bool:
    if header is None or header.strip().lower() == b"json":
        return False
    if header.strip().lower() != b"resp2":
        raise BadRequest("ERR Upstash-Response-Format must be json or resp2")
    if encoding is not None:
        raise BadRequest("ERR Upstash-Encoding cannot be combined with Upstash-Response-Format: resp2")
    return True


def envelope(reply: Reply, encode: Encode) -> dict[str, Any]:
    if isinstance(reply, ErrorReply):
        return {"error": str(reply)}
    return {"result": _plain(reply, encode)}


def _plain(reply: Reply, encode: Encode) -> Any:
    if isinstance(reply, bytes):
        return encode(reply)
    if isinstance(reply, list):
        return [_plain(element, encode) for element in reply]
    if isinstance(reply, ErrorReply):  # inside an array, as a script may return it
        return encode(str(reply).encode())
    return reply


def body(content: object) -> bytes:
    return _encode_json(content)


def error_body(text: str) -> bytes:
    return _encode_json({"error": text})


def resp2_error(text: str) -> bytes:
    line = text.replace("\r", " ").replace("\n", " ")
    return b"-" + line.encode() + b"\r\n"
