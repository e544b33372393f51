"""Tool `file_write`: stores a file in the workspace."""

from infra.contract.files import FileChanges
from infra.contract.tools import FileWriteArgs
from worker.toolkit.base import Tool, ToolContext, ToolResult


class FileWriteResult(ToolResult, frozen=True, kw_only=True):
    """Path and size of the stored file."""

    path: str
    size_bytes: int


async def run(args: FileWriteArgs, context: ToolContext) -> FileWriteResult:
    """Store a whole file; an existing one is replaced. Raises LimitExceeded."""
    stored = await context.files.write(args.path, args.data())
    context.changed(FileChanges(written=[stored], deleted=[], skipped=[]))
    return FileWriteResult(path=stored.path, size_bytes=stored.size_bytes)


TOOL = Tool("file_write", FileWriteArgs, run, idempotent=True)
