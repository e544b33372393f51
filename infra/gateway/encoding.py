"""Encode replies of Redis as response bodies."""

from __future__ import annotations

import codecs
import itertools
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from infra.gateway.errors import MalformedRequest

_encode_json = msgspec.json.Encoder().encode
_process = secrets.token_hex(4)
_response_numbers = itertools.count(1)

_PIECE_BYTES = 3 * 16 * 1024
"""Bytes of a long string that are encoded at a time: a multiple of 3, so that their base64 needs no padding."""


@dataclass(frozen=True)
class Encoding:
    """Encoding of strings in results: `whole` at once, `pieces` as parts of one JSON string without its quotes."""

    whole: Callable[[bytes], str]
    pieces: Callable[[bytes], Iterator[bytes]]


def as_text(value: bytes) -> str:
    """Decode UTF-8; invalid bytes become U+FFFD."""
    return value.decode("utf-8", "replace")


def _text_pieces(value: bytes) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for start in range(0, len(value), _PIECE_BYTES):
        last = start + _PIECE_BYTES >= len(value)
        yield _encode_json(decoder.decode(value[start : start + _PIECE_BYTES], last))[1:-1]


def _as_base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _base64_pieces(value: bytes) -> Iterator[bytes]:
    for start in range(0, len(value), _PIECE_BYTES):
        yield b64encode(value[start : start + _PIECE_BYTES])


TEXT = Encoding(as_text, _text_pieces)
BASE64 = Encoding(_as_base64, _base64_pieces)


def sync_token() -> bytes:
    """Return a value of the header `Upstash-Sync-Token` that differs in every response."""
    # Clients send the token back, but the gateway ignores it: it has a single Redis, which is always consistent.
    return f"{_process}-{next(_response_numbers)}".encode()


def encoding_for(header: bytes | None) -> Encoding:
    """Return the encoding that the header `Upstash-Encoding` asks for. Raises `MalformedRequest`."""
    if header is None:
        return TEXT
    if header.strip().lower() == b"base64":
        return BASE64
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
