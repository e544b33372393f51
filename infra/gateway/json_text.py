"""Look at JSON text in slices, before it is decoded: msgspec decodes a text in one go."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from infra.gateway.pacing import Pacer

LARGE_BYTES = 128 * 1024
"""Size from which a text is looked at in slices; a smaller one is decoded within a slice."""

# A scalar without long strings: msgspec decodes those much faster than these expressions find their end.
_SCALAR = rb'(?:"[^"\\]{0,4000}+(?:\\.[^"\\]{0,4000}+){0,50}+"|[-+.0-9a-zA-Z]++)'
_SPACE = rb"[ \t\r\n]*+"
# No group that can fail in its middle is possessive: up to Python 3.11.4, it keeps what it has matched there.
_SCALARS = re.compile(rb"(?:%b%b%b,){1,1000}" % (_SPACE, _SCALAR, _SPACE))
_LIST = rb"%b\[(?:%b%b%b,?+){0,20}+%b\]%b," % (_SPACE, _SPACE, _SCALAR, _SPACE, _SPACE, _SPACE)
_ONE_LIST = re.compile(_LIST)
_HUNDRED_LISTS = re.compile(rb"(?:%b){100}+" % _LIST)
_OPENING = re.compile(rb"%b\[" % _SPACE)

_OTHER_ESCAPES = re.compile(rb"(?:\\(?!u[dD][89a-fA-F][0-9a-fA-F]{2}).){0,1000}", re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD]([89a-fA-F])[0-9a-fA-F]{2}")
_HIGH = b"89abAB"
_COUNTED_BYTES = 1024 * 1024
_REPLACEMENT = rb"\ufffd"


async def count_exceeds(text: bytes, limit: int, pacer: Pacer) -> bool:
    """Return True if the text is an array of more than `limit` arrays. False is not certain: decoding must count again.

    Looks no further than it must: a text of millions of short arrays costs as much as one of `limit`.
    """
    if len(text) <= LARGE_BYTES or text.count(b"[") <= limit + 1:
        return False
    start = _OPENING.match(text)
    position, count = start.end() if start else len(text), 0
    # A text that begins with longer arrays is left to the decoder, which is faster per byte.
    while count <= limit and position < _COUNTED_BYTES:
        step = 100
        lists = _HUNDRED_LISTS.match(text, position)
        if lists is None:
            step = 1
            lists = _ONE_LIST.match(text, position)
        if lists is None:
            return False
        position = lists.end()
        count += step
        if pacer.due:
            await pacer.pause()
    return count > limit


async def simple_elements(text: bytes, pacer: Pacer) -> AsyncIterator[tuple[int, bytes]]:
    """Yield the first elements of an array in groups: the position in the text after each group, the group as an array.

    Ends at the last element, and at the first one that is a list, an object or a long string.
    """
    start = _OPENING.match(text)
    position = start.end() if start else len(text)
    while scalars := _SCALARS.match(text, position):
        position = scalars.end()
        yield position, b"[" + scalars[0][:-1] + b"]"
        if pacer.due:
            await pacer.pause()


async def replace_half_characters(text: bytes, pacer: Pacer) -> bytes:
    """Return the text with U+FFFD in place of every half of a surrogate pair, and of bytes that are not UTF-8.

    Upstash accepts both, as the JSON decoder of Go does. JavaScript sends half a character for a text that was cut
    within an emoji.
    """
    text = text.decode("utf-8", "replace").encode()
    parts: list[bytes] = []
    done = 0
    position = text.find(b"\\")
    while position >= 0:
        position = _OTHER_ESCAPES.match(text, position).end()  # type: ignore[union-attr] # matches an empty text, too
        found = _SURROGATE.match(text, position)
        if found is not None:
            position = found.end()
            low = _SURROGATE.match(text, position)
            if found[1] in _HIGH and low is not None and low[1] not in _HIGH:
                position = low.end()
            else:
                parts += (text[done : found.start()], _REPLACEMENT)
                done = position
        # Without a surrogate the text ends with a backslash, or there were as many escapes as are matched at a time.
        position = text.find(b"\\", position if position < len(text) - 1 else len(text))
        if pacer.due:
            await pacer.pause()
    return b"".join((*parts, text[done:]))
