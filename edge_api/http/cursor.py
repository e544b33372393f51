"""Opaque cursor of a list: a position in one user's index of runs, with a checksum.

A cursor is neither secret nor a permission, because a position is only used in the index of the user who sends it. The
checksum detects cursors that are damaged, made up, or issued to another user.
"""

import base64
import binascii
import hashlib

import msgspec

from edge_api.http.errors import BadCursor

_CHECKSUM_BYTES = 6


class _IndexPosition(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    created_ms: int
    run_id: str


_decoder = msgspec.json.Decoder(_IndexPosition)


def encode_cursor(position: tuple[int, str], user: str) -> str:
    """Return the cursor of a position (creation in ms, run id) for `user`."""
    body = msgspec.json.encode(_IndexPosition(*position))
    return base64.urlsafe_b64encode(_checksum(body, user) + body).rstrip(b"=").decode()


def decode_cursor(text: str, user: str) -> tuple[int, str]:
    """Return the position of a cursor. Raises BadCursor unless the exact text was issued to `user`."""
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        decoded = _decoder.decode(raw[_CHECKSUM_BYTES:])
    except (UnicodeError, binascii.Error, msgspec.DecodeError):
        raise BadCursor("the cursor is damaged; start again without one") from None
    position = (decoded.created_ms, decoded.run_id)
    # Encoding again compares the checksum, and rejects other spellings of the same position.
    if encode_cursor(position, user) != text:
        raise BadCursor("the cursor is damaged or belongs to another user; start again without one")
    return position


def _checksum(body: bytes, user: str) -> bytes:
    return hashlib.sha256(b"\0".join((b"cursor", user.encode(), body))).digest()[:_CHECKSUM_BYTES]
