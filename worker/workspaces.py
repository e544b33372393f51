"""Port to the object store as the worker needs it; `infra.workspace` implements it."""

from collections.abc import Mapping
from typing import Protocol

from infra.contract.files import NO_FOLDERS, FileEntry, FolderEntry, JournaledFiles, ToolFiles
from infra.contract.lending import ExecutorFiles
from infra.contract.log import LogArchive


class RunFiles(ToolFiles, ExecutorFiles, JournaledFiles, Protocol):
    """Workspace of one claimed run, for tools, executor and run context."""


class RunWorkspaces(Protocol):
    """Source of the workspaces of claimed runs, and of the archive of their logs."""

    @property
    def logs(self) -> LogArchive:
        """Return the archive of logs."""
        ...

    def run(
        self,
        user_id: str,
        run_id: str,
        fence: int,
        files: Mapping[str, FileEntry],
        folders: Mapping[str, FolderEntry] = NO_FOLDERS,
    ) -> RunFiles:
        """Return the workspace of one claimed run, whose record names `files` and `folders`."""
        ...
