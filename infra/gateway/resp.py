"""RESP2: replies as Python values with the exact text of errors, and commands as bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import hiredis

RespReply = Any
"""bytes, int, None, ErrorReply, or a list of these; from a raw reader always `RawReply`."""


class ErrorReply(Exception):
    """Error reply of Redis, as a value. Its text is exactly the text on the wire."""


# The type stub of hiredis declares only commands of one word.
_pack = cast("Callable[[tuple[bytes | str, ...]], bytes]", hiredis.pack_command)


def pack(command: Sequence[bytes | str]) -> bytes:
    """Encode a command for the wire."""
    return _pack(tuple(command))


class ReplyReader(Protocol):
    """Incremental parser of replies. `gets` returns the next reply, False if it is incomplete.

    `has_data` returns whether bytes of a next reply follow; it may be asked only right after a whole reply.
    """

    def feed(self, data: bytes, /) -> object: ...
    def has_data(self) -> bool: ...
    def gets(self) -> RespReply: ...


def value_reader() -> ReplyReader:
    """Return a parser of replies as Python values."""
    return hiredis.Reader(replyError=ErrorReply)


class RawReply(bytes):
    """Reply as its bytes on the wire, from a raw reader."""


def error_text(reply: RespReply) -> str:
    """Return the text of an error reply, an empty text for any other reply."""
    if isinstance(reply, RawReply) and reply.startswith(b"-"):
        return reply[1:].decode("utf-8", "replace").rstrip()
    return str(reply) if isinstance(reply, ErrorReply) else ""
