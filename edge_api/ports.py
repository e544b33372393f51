"""What the edge needs of the workspaces; `infra.workspace` provides it."""

from collections.abc import Sequence
from typing import Protocol

from infra.contract.models import FileInfo


class Listing(Protocol):
    """The files of one run."""

    async def list(self, folder: str = "") -> Sequence[FileInfo]:
        """All files, or those below one folder, sorted by path."""
        ...


class Workspaces(Protocol):
    """The files of all runs. Everything raises FilesUnavailable if the object store fails."""

    def run(self, user_id: str, run_id: str) -> Listing:
        """The workspace of one run."""
        ...

    async def head(self, user_id: str, run_id: str, path: str) -> FileInfo:
        """Size and time of one file. Raises FileMissing."""
        ...

    async def presign_get(self, user_id: str, run_id: str, path: str, expires_s: int) -> str:
        """A URL by which whoever has it can fetch the file until it expires."""
        ...

    async def delete_run(self, user_id: str, run_id: str) -> int:
        """Delete all files of a run; returns how many."""
        ...
