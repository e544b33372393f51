"""Ports as the edge needs them: the object store, which `infra.workspace` provides, and QStash, by `infra.qstash`."""

from collections.abc import Mapping
from typing import Protocol

from infra.contract.files import FileEntry
from infra.contract.log import LogArchive


class QStashPort(Protocol):
    """Schedules of QStash, and its calls. Paths are paths of the API."""

    async def put_schedule(self, schedule_id: str, path: str, cron: str, body: str) -> None:
        """Let a path be called whenever the expression is due; replace such a schedule. Raises QStashUnavailable."""
        ...

    async def delete_schedule(self, schedule_id: str) -> None:
        """Delete a schedule, which need not exist. Raises QStashUnavailable."""
        ...

    def check_call(self, signature: str, path: str, body: bytes, now_s: float) -> None:
        """Check the signature of a call to a path. Raises CallRejected."""
        ...


class FileLimits(Protocol):
    """Limits in bytes: of one file, and of all files of a run."""

    @property
    def file_bytes(self) -> int: ...

    @property
    def total_bytes(self) -> int: ...


class WorkspaceStore(Protocol):
    """Files and archived logs of runs. Every method raises FilesUnavailable if the object store fails."""

    @property
    def logs(self) -> LogArchive:
        """Archive of logs."""
        ...

    @property
    def limits(self) -> FileLimits:
        """Limits of the workspace of a run."""
        ...

    def new_upload(self, path: str, size_bytes: int, sha256: str) -> FileEntry:
        """Return the entry of an input file that is to be uploaded, with an unused object key."""
        ...

    def upload_headers(self, size_bytes: int, sha256: str, md5: str | None) -> dict[str, str]:
        """Return the headers that the upload of an input file must have. Raises InvalidInput if the store needs MD5."""
        ...

    async def presign_put(self, user_id: str, run_id: str, key: str, expires_s: int, headers: Mapping[str, str]) -> str:
        """Return a URL with which anybody can store the object for `expires_s`, with exactly these headers."""
        ...

    async def missing(self, user_id: str, run_id: str, files: Mapping[str, FileEntry]) -> list[str]:
        """Return the paths of announced files whose objects are missing, or are others."""
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
