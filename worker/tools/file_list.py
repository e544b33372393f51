"""Tool `file_list`: lists the files of the workspace."""

from infra.contract.files import FileInfo
from infra.contract.tools import FileListArgs
from worker.toolkit.base import Tool, ToolContext, ToolResult

MAX_LISTED = 500


class FileListResult(ToolResult, frozen=True, kw_only=True):
    """First MAX_LISTED files by path, and the number of all files."""

    files: list[FileInfo]
    count: int


async def run(args: FileListArgs, context: ToolContext) -> FileListResult:
    """List all files, or those below one folder, and log the list."""
    files = await context.files.list(args.path)
    for file in files[:MAX_LISTED]:
        await context.output("stdout", f"{file.size_bytes:>12}  {file.path}")
    return FileListResult(files=files[:MAX_LISTED], count=len(files))


TOOL = Tool("file_list", FileListArgs, run, idempotent=True)
