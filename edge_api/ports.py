"""Port to the object store, as the edge needs it; `infra.workspace` provides it."""

from typing import Protocol

from infra.contract.files import FileEntry
from infra.contract.log import LogArchive


class WorkspaceStore(Protocol):
    """Files and archived logs of runs. Every method raises FilesUnavailable if the object store fails."""

    @property
    def logs(self) -> LogArchive:
        """Archive of logs."""
        ...

    async def presign_get(
        self, user_id: str, run_id: str, path: str, entry: FileEntry, expires_s: int, *, inline: bool = False
    ) -> str:
        """Return a URL with which anybody can fetch the file for `expires_s`; browsers show it if `inline`."""
        ...

    def link_type(self, path: str, *, inline: bool) -> str:
        """Return the content type with which a link serves the file. Raises InvalidInput if it cannot be `inline`."""
        ...

    async def delete_run(self, user_id: str, run_id: str) -> int:
        """Delete all files of a run. Return the number of deleted objects."""
        ...
