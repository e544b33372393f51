"""The opaque cursor of a list: a place in one user's index, checked when it comes back.

It is no secret and no permission: a place is only ever looked up in the index of who is asking. The check finds what
was damaged, made up, or given to another user.
"""

import base64
import binascii
import hashlib

import msgspec

from edge_api.http.errors import BadCursor

_CHECK_BYTES = 6


class _Place(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    created_ms: int
    run_id: str


_places = msgspec.json.Decoder(_Place)


def encode_cursor(place: tuple[int, str], user: str) -> str:
    """A place (creation in ms, run id) as a cursor for `user`."""
    body = msgspec.json.encode(_Place(*place))
    return base64.urlsafe_b64encode(_check(body, user) + body).rstrip(b"=").decode()


def decode_cursor(text: str, user: str) -> tuple[int, str]:
    """The place of a cursor. Raises BadCursor unless it is to the letter one that was given to `user`."""
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        place = _places.decode(raw[_CHECK_BYTES:])
    except (UnicodeError, binascii.Error, msgspec.DecodeError):
        raise BadCursor("the cursor is damaged; start again without one") from None
    found = (place.created_ms, place.run_id)
    if encode_cursor(found, user) != text:
        raise BadCursor("the cursor is damaged or not yours; start again without one")
    return found


def _check(body: bytes, user: str) -> bytes:
    return hashlib.sha256(b"\0".join((b"cursor", user.encode(), body))).digest()[:_CHECK_BYTES]
