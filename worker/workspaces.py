"""What the worker needs of the workspaces; `infra.workspace` provides it."""

from collections.abc import Mapping
from typing import Protocol

from infra.contract.models import FileEntry
from infra.contract.ports import LogArchive, RunFiles


class Workspaces(Protocol):
    """Gives the workspace of a run, and the archive of logs."""

    @property
    def logs(self) -> LogArchive:
        """The archive of logs."""
        ...

    def run(self, user_id: str, run_id: str, fence: int, files: Mapping[str, FileEntry]) -> RunFiles:
        """The files of one claimed run, whose record names `files`."""
        ...
