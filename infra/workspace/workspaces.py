"""Entry point of the API and the worker to the objects of runs: their workspaces and archived logs."""

from collections.abc import Mapping

from infra.contract.errors import InvalidInput
from infra.contract.files import NO_FOLDERS, FileEntry, FolderEntry
from infra.settings import S3Settings
from infra.workspace.bucket import Bucket
from infra.workspace.deletion import delete_below
from infra.workspace.file_index import FileIndex
from infra.workspace.limits import WorkspaceLimits
from infra.workspace.links import served_as
from infra.workspace.log_segments import LogSegments
from infra.workspace.object_keys import run_prefix
from infra.workspace.run_files import S3RunFiles
from infra.workspace.threads import Threads

MAX_LINK_S = 7 * 24 * 3600
"""Maximum validity of a link that the signature allows."""


class Workspaces:
    """Workspaces and archived logs in one bucket. The client is created with the first call.

    Methods raise FilesUnavailable if the store fails, and InvalidInput for an id or path that a key cannot contain.
    """

    def __init__(self, settings: S3Settings, limits: WorkspaceLimits | None = None) -> None:
        self._bucket = Bucket(settings)
        self._threads = Threads()
        self._limits = limits or WorkspaceLimits()
        self.logs = LogSegments(self._bucket, self._threads)

    async def ensure_bucket(self) -> None:
        """Create the bucket if it is missing. Several processes may call this at the same time."""
        await self._threads.call(lambda _: self._bucket.create())

    async def check(self) -> None:
        """Raise FilesUnavailable if the bucket cannot be used."""
        await self._threads.call(lambda _: self._bucket.check())

    def run(
        self,
        user_id: str,
        run_id: str,
        fence: int,
        files: Mapping[str, FileEntry],
        folders: Mapping[str, FolderEntry] = NO_FOLDERS,
    ) -> S3RunFiles:
        """Return the workspace of one claimed run, whose record names `files` and `folders`.

        Use one object for the whole claim.
        """
        index = FileIndex(fence, files, folders)
        return S3RunFiles(self._bucket, self._threads, run_prefix(user_id, run_id), self._limits, index)

    async def presign_get(
        self, user_id: str, run_id: str, path: str, entry: FileEntry, expires_s: int, *, inline: bool = False
    ) -> str:
        """Return a URL that anyone can fetch the file with until it expires. It is a secret: never log it.

        The file downloads as an attachment. With `inline` a browser shows it if its type cannot run code (see
        links.py). Does not check that the object exists.
        """
        if not 1 <= expires_s <= MAX_LINK_S:
            raise InvalidInput(f"a link is valid for 1 to {MAX_LINK_S} seconds, not {expires_s}", "expires_s")
        content_type, disposition = served_as(path, inline=inline)
        key = run_prefix(user_id, run_id) + entry.key
        return await self._threads.call(lambda _: self._bucket.link(key, expires_s, content_type, disposition))

    async def delete_run(self, user_id: str, run_id: str) -> int:
        """Delete all objects below the run's prefix, workspace and archived log; return their number."""
        prefix = run_prefix(user_id, run_id)
        return await self._threads.call(lambda cancellation: delete_below(self._bucket, prefix, cancellation))

    def close(self) -> None:
        """Wait for calls in progress and close threads and connections. Blocks: call it off the event loop."""
        self._threads.close()
        self._bucket.close()
