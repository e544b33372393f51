"""Tool `file_write`: stores a file in the workspace."""

import base64

from infra.contract.files import FileChanges
from infra.contract.tools import FileWriteArgs
from worker.toolkit.base import Tool, ToolContext, ToolFailed, ToolResult


class FileWriteResult(ToolResult, frozen=True, kw_only=True):
    """Path and size of the stored file."""

    path: str
    size_bytes: int


async def run(args: FileWriteArgs, context: ToolContext) -> FileWriteResult:
    """Store a whole file; an existing one is replaced. Raises LimitExceeded."""
    stored = await context.files.write(args.path, _data(args))
    context.changed(FileChanges(written=[stored], deleted=[], skipped=[]))
    return FileWriteResult(path=stored.path, size_bytes=stored.size_bytes)


def _data(args: FileWriteArgs) -> bytes:
    if args.encoding == "utf-8":
        return args.content.encode()
    try:
        return base64.b64decode(args.content, validate=True)
    except ValueError as exc:
        raise ToolFailed("invalid_input", f"content is not base64, although encoding is 'base64': {exc}") from exc


TOOL = Tool("file_write", FileWriteArgs, run, idempotent=True)
