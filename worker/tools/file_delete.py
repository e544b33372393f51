"""The tool `file_delete`."""

from infra.contract.files import FileChanges
from infra.contract.tools import FileDeleteArgs
from worker.toolkit.base import Tool, ToolContext, ToolResult


class FileDeleteResult(ToolResult, frozen=True, kw_only=True):
    """What was deleted."""

    path: str


async def run(args: FileDeleteArgs, context: ToolContext) -> FileDeleteResult:
    """Delete a file of the workspace."""
    await context.files.delete(args.path)
    context.changed(FileChanges(written=[], deleted=[args.path], skipped=[]))
    return FileDeleteResult(path=args.path)


TOOL = Tool("file_delete", FileDeleteArgs, run, idempotent=True)
