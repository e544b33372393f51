"""The tool `file_read`."""

import base64
from typing import Literal

from infra.contract.tools import FileReadArgs
from worker.tools.base import Tool, ToolContext, ToolResult


class FileReadResult(ToolResult, frozen=True, kw_only=True):
    """The file's content, cut after `max_bytes`. What is not UTF-8 text is given as base64."""

    path: str
    content: str
    encoding: Literal["utf-8", "base64"]
    size_bytes: int
    truncated: bool


async def run(args: FileReadArgs, context: ToolContext) -> FileReadResult:
    """Read a file of the workspace."""
    data = await context.files.read(args.path, args.max_bytes + 1)
    shown = data[: args.max_bytes]
    content, encoding = _text(shown, whole=len(data) == len(shown))
    return FileReadResult(
        path=args.path,
        content=content,
        encoding=encoding,
        size_bytes=len(shown),
        truncated=len(data) > len(shown),
    )


def _text(data: bytes, *, whole: bool) -> tuple[str, Literal["utf-8", "base64"]]:
    """The data as text if it is text; a character that the cut went through does not count against it."""
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError as exc:
        if not whole and exc.start >= len(data) - 3:
            return data[: exc.start].decode(), "utf-8"
        return base64.b64encode(data).decode(), "base64"


TOOL = Tool("file_read", FileReadArgs, run, idempotent=True)
