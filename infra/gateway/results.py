"""Encode the replies of Redis as the JSON of Upstash: `{"result": …}` or `{"error": text}`.

A body is made in pieces of bounded work, so that the caller can pause between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from infra.gateway.encoding import Encoding, body
from infra.gateway.resp import ErrorReply, RespReply

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


def result_pieces(reply: RespReply, encoding: Encoding) -> Iterator[bytes]:
    """Yield the body of the response to one command. Takes the elements out of `reply`."""
    try:
        yield body(_envelope(reply, encoding, _Piece()))
    except _TooMuchWork:
        yield from _split_envelope(reply, encoding)


def batch_pieces(replies: list[RespReply], encoding: Encoding) -> Iterator[bytes]:
    """Yield the body of the response to a batch. Takes the elements out of `replies`."""
    return _list_pieces(replies, encoding, _envelope, _split_envelope)


def _envelope(reply: RespReply, encoding: Encoding, piece: _Piece) -> dict[str, Any]:
    if isinstance(reply, ErrorReply):
        text = str(reply)
        piece.spend(len(text) if piece.left < _PIECE_WORK else 0)
        return {"error": text}
    # A result that is `OK` is never encoded; inside a list `OK` is a string like any other.
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
    if isinstance(reply, ErrorReply):  # inside an array, as a script may return it
        return encoding.whole(str(reply).encode())
    return reply


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
