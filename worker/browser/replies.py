"""Replies of the program that drives the browser. It runs beside hostile pages, so nothing of them is trusted."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from infra.contract.errors import SessionLost

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_HEAD_BYTES = 1024 * 1024
MAX_REPLY_BYTES = MAX_FILE_BYTES + MAX_HEAD_BYTES

Short = Annotated[str, Meta(max_length=1000)]
Url = Annotated[str, Meta(max_length=100_000)]


class PageLink(msgspec.Struct, frozen=True, kw_only=True):
    """Link on a page."""

    text: Annotated[str, Meta(max_length=100)]
    url: Annotated[str, Meta(max_length=500)]


class PageReply(msgspec.Struct, frozen=True, kw_only=True):
    """Head of a reply. With `error`, a code, the action has failed, and `message` says why."""

    url: Url
    pages: Annotated[int, Meta(ge=0, le=1000)]
    notes: Annotated[Sequence[Annotated[str, Meta(max_length=300)]], Meta(max_length=20)]
    error: Short = ""
    message: Short = ""
    title: Annotated[str, Meta(max_length=300)] = ""
    text: Annotated[str, Meta(max_length=16 * 1024)] = ""
    text_truncated: bool = False
    links: Annotated[Sequence[PageLink], Meta(max_length=100)] | None = None
    value: Annotated[str, Meta(max_length=8 * 1024)] | None = None
    file_name: Short = ""
    content_type: Short = ""


def decode_reply(data: bytes) -> tuple[PageReply, bytes]:
    """Return the head of a reply, and the bytes of its file. Raises SessionLost for what the program never sends."""
    head, _, file = data.partition(b"\n")
    try:
        return msgspec.json.decode(head, type=PageReply), file
    except msgspec.DecodeError as exc:
        raise SessionLost("its answer cannot be decoded") from exc
