"""Tool `file_read`: returns the content of a file of the workspace."""

import base64
import codecs
from typing import Literal

from infra.contract.tools import FileReadArgs
from worker.toolkit.base import Tool, ToolContext, ToolResult


class FileReadResult(ToolResult, frozen=True, kw_only=True):
    """Content of a file, truncated after `max_bytes`: as text if it is UTF-8, else as base64.

    `size_bytes` is the number of bytes returned, not the size of the file.
    """

    path: str
    content: str
    encoding: Literal["utf-8", "base64"]
    size_bytes: int
    truncated: bool


async def run(args: FileReadArgs, context: ToolContext) -> FileReadResult:
    """Read a file. Raises FileMissing."""
    # One byte more than is returned shows whether the file is longer.
    data = await context.files.read(args.path, args.max_bytes + 1)
    truncated = len(data) > args.max_bytes
    shown = data[: args.max_bytes]
    text = _text(shown, truncated=truncated)
    return FileReadResult(
        path=args.path,
        content=base64.b64encode(shown).decode() if text is None else text,
        encoding="base64" if text is None else "utf-8",
        size_bytes=len(shown) if text is None else len(text.encode()),
        truncated=truncated,
    )


def _text(data: bytes, *, truncated: bool) -> str | None:
    """Return the data as text, or None if it is not UTF-8."""
    try:
        # With `final=False` the decoder drops an incomplete character at the end, which the truncation has split.
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=not truncated)
    except UnicodeDecodeError:
        return None


TOOL = Tool("file_read", FileReadArgs, run, idempotent=True)
