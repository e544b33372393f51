"""What the edge needs of the workspaces; `infra.workspace` provides it."""

from typing import Protocol

from infra.contract.files import FileEntry
from infra.contract.log import LogArchive


class Workspaces(Protocol):
    """All that runs keep in the object store. Everything raises FilesUnavailable if that fails."""

    @property
    def logs(self) -> LogArchive:
        """The archive of logs."""
        ...

    async def presign_get(self, user_id: str, run_id: str, path: str, entry: FileEntry, expires_s: int) -> str:
        """A URL by which whoever has it can fetch the file until it expires."""
        ...

    async def delete_run(self, user_id: str, run_id: str) -> int:
        """Delete all files of a run; returns how many objects that were."""
        ...
