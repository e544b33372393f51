"""Tool `file_read`: returns the content of a file of the workspace."""

import base64
import codecs
from typing import Literal

from infra.contract.tools import FileReadArgs
from worker.toolkit.base import Tool, ToolContext, ToolResult

_CONTINUATION = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that continue a character."""


class FileReadResult(ToolResult, frozen=True, kw_only=True):
    """Content of a file, or of a part of it: as text if the part is UTF-8, else as base64.

    `size_bytes` is the number of bytes returned, not the size of the file; they begin at `offset`. `truncated`: the
    file goes on after them. Text begins and ends with whole characters, so `offset` may be up to 3 bytes later than
    was asked for, and the next part begins at `offset + size_bytes`.
    """

    path: str
    content: str
    encoding: Literal["utf-8", "base64"]
    size_bytes: int
    truncated: bool
    offset: int = 0


async def run(args: FileReadArgs, context: ToolContext) -> FileReadResult:
    """Read a file. Raises FileMissing."""
    # One byte more than is returned shows whether the file is longer.
    data = await context.files.read(args.path, args.max_bytes + 1, args.offset)
    truncated = len(data) > args.max_bytes
    shown = data[: args.max_bytes]
    begun = _begun_character(shown) if args.offset else 0
    text = _text(shown[begun:], truncated=truncated)
    return FileReadResult(
        path=args.path,
        content=base64.b64encode(shown).decode() if text is None else text,
        encoding="base64" if text is None else "utf-8",
        size_bytes=len(shown) if text is None else len(text.encode()),
        truncated=truncated,
        offset=args.offset if text is None else args.offset + begun,
    )


def _begun_character(data: bytes) -> int:
    """Return the number of bytes at the start that belong to a character before them: at most 3."""
    begun = len(data[:4]) - len(data[:4].lstrip(_CONTINUATION))
    return begun if begun < 4 else 0


def _text(data: bytes, *, truncated: bool) -> str | None:
    """Return the data as text, or None if it is not UTF-8."""
    try:
        # With `final=False` the decoder drops an incomplete character at the end, which the truncation has split.
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=not truncated)
    except UnicodeDecodeError:
        return None


TOOL = Tool("file_read", FileReadArgs, run, idempotent=True)
