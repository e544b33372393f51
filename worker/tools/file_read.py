"""The tool `file_read`."""

import base64
import codecs
from typing import Literal

from infra.contract.tools import FileReadArgs
from worker.toolkit.base import Tool, ToolContext, ToolResult


class FileReadResult(ToolResult, frozen=True, kw_only=True):
    """The file's content, cut after `max_bytes`. What is not UTF-8 text is given as base64.

    `size_bytes` is that of the content given here.
    """

    path: str
    content: str
    encoding: Literal["utf-8", "base64"]
    size_bytes: int
    truncated: bool


async def run(args: FileReadArgs, context: ToolContext) -> FileReadResult:
    """Read a file of the workspace."""
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
    """The data as text if it is text, without a character that the cut went through."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=not truncated)
    except UnicodeDecodeError:
        return None


TOOL = Tool("file_read", FileReadArgs, run, idempotent=True)
