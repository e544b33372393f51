"""Tool `file_delete`: deletes a file of the workspace."""

from infra.contract.files import FileChanges
from infra.contract.tools import FileDeleteArgs
from worker.toolkit.base import Tool, ToolContext, ToolResult


class FileDeleteResult(ToolResult, frozen=True, kw_only=True):
    """Path of the deleted file."""

    path: str


async def run(args: FileDeleteArgs, context: ToolContext) -> FileDeleteResult:
    """Delete a file. Raises FileMissing."""
    await context.files.delete(args.path)
    context.changed(FileChanges(written=[], deleted=[args.path], skipped=[]))
    return FileDeleteResult(path=args.path)


TOOL = Tool("file_delete", FileDeleteArgs, run, idempotent=True)
