"""Encode the replies of Redis as the JSON of Upstash: `{"result": …}` or `{"error": text}`.

A body is made in pieces of bounded work, so that the caller can pause between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from infra.gateway.encoding import Encoding, body
from infra.gateway.replies import Replies
from infra.gateway.resp import ErrorReply, RespReply

_SMALL_BYTES = 32 * 1024
"""Replies up to this size are encoded in one piece."""
_PIECE_WORK = 1000
"""Elements that are encoded at a time; 64 bytes of a string count as one."""


class _TooMuchWork(Exception):
    """The value does not fit into the piece."""


class _Piece:
    """Work that is left for one piece."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _PIECE_WORK

    def spend(self, text_bytes: int = 0) -> None:
        self.left -= 1 + text_bytes // 64
        if self.left < 0:
            raise _TooMuchWork


_Convert = Callable[[RespReply, Encoding, _Piece], Any]
_Split = Callable[[RespReply, Encoding], Iterator[bytes]]


def result_pieces(replies: Replies, encoding: Encoding) -> Iterator[bytes]:
    """Yield the body of the response to one command. Takes the elements out of its reply."""
    if replies.size <= _SMALL_BYTES:
        yield body(_small_envelope(replies[0], encoding))
        return
    try:
        yield body(_envelope(replies[0], encoding, _Piece()))
    except _TooMuchWork:
        yield from _split_envelope(replies[0], encoding)


def batch_pieces(replies: Replies, encoding: Encoding) -> Iterator[bytes]:
    """Yield the body of the response to a batch. Takes the elements out of `replies`."""
    if replies.size <= _SMALL_BYTES and len(replies) <= _PIECE_WORK:
        yield body([_small_envelope(reply, encoding) for reply in replies])
        return
    yield from _list_pieces(replies, encoding, _envelope, _split_envelope)


def _small_envelope(reply: RespReply, encoding: Encoding) -> dict[str, Any]:
    """Return what `_envelope` returns, without counting the work."""
    if isinstance(reply, ErrorReply):
        return {"error": str(reply)}
    # A result that is `OK` is never encoded; inside a list `OK` is a string like any other.
    return {"result": "OK" if reply == b"OK" else _small(reply, encoding.whole)}


def _small(reply: RespReply, encode: Callable[[bytes], str]) -> Any:
    if isinstance(reply, bytes):
        return encode(reply)
    if isinstance(reply, list):
        return [_small(element, encode) for element in reply]
    if isinstance(reply, ErrorReply):  # inside an array, as a script may return it
        return encode(str(reply).encode())
    return reply


def _envelope(reply: RespReply, encoding: Encoding, piece: _Piece) -> dict[str, Any]:
    if isinstance(reply, ErrorReply):
        text = str(reply)
        piece.spend(len(text) if piece.left < _PIECE_WORK else 0)
        return {"error": text}
    if isinstance(reply, bytes) and reply == b"OK":
        piece.spend()
        return {"result": "OK"}
    return {"result": _plain(reply, encoding, piece)}


def _split_envelope(reply: RespReply, encoding: Encoding) -> Iterator[bytes]:
    yield b'{"result":'
    yield from _split(reply, encoding)
    yield b"}"


def _plain(reply: RespReply, encoding: Encoding, piece: _Piece) -> Any:
    if isinstance(reply, bytes):
        piece.spend(len(reply))
        return encoding.whole(reply)
    piece.spend()
    if isinstance(reply, list):
        return [_plain(element, encoding, piece) for element in reply]
    return _small(reply, encoding.whole)


def _split(reply: RespReply, encoding: Encoding) -> Iterator[bytes]:
    """Yield the JSON of a list or string that is too large for one piece."""
    if isinstance(reply, list):
        yield from _list_pieces(reply, encoding, _plain, _split)
    else:
        yield b'"'
        yield from encoding.pieces(reply)
        yield b'"'


def _list_pieces(elements: list[RespReply], encoding: Encoding, convert: _Convert, split: _Split) -> Iterator[bytes]:
    """Yield a JSON array: `convert` makes small elements, which share pieces, and `split` encodes the others."""
    converted: list[Any] = []
    piece = _Piece()
    opening = b"["
    for index, element in enumerate(elements):
        elements[index] = None  # frees the memory piece by piece, too: all at once takes as long as many slices
        try:
            converted.append(convert(element, encoding, piece))
            continue
        except _TooMuchWork:
            pass
        if converted:
            yield opening + body(converted)[1:-1]
            converted, opening = [], b","
        piece = _Piece()
        try:
            converted.append(convert(element, encoding, piece))
        except _TooMuchWork:
            yield opening
            yield from split(element, encoding)
            opening, piece = b",", _Piece()
    if converted:
        yield opening + body(converted)[1:-1]
    yield b"]" if elements else b"[]"
