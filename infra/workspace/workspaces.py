"""All that runs keep in the object store, their workspaces and `logs`: the entrance for the API and the worker."""

from collections.abc import Mapping

from infra.contract.errors import InvalidInput
from infra.contract.files import FileEntry
from infra.settings import S3Settings
from infra.workspace.bucket import Bucket
from infra.workspace.deletion import delete_below
from infra.workspace.limits import WorkspaceLimits
from infra.workspace.links import served_as
from infra.workspace.log_segments import LogSegments
from infra.workspace.object_keys import run_prefix
from infra.workspace.run_files import S3RunFiles
from infra.workspace.threads import Threads

MAX_LINK_S = 7 * 24 * 3600
"""What the signature allows at most."""


class Workspaces:
    """The workspaces in one bucket. Building one costs nothing; the client comes with the first call.

    Methods raise FilesUnavailable if the store fails and InvalidInput for an id or path that a key cannot hold.
    """

    def __init__(self, settings: S3Settings, limits: WorkspaceLimits | None = None) -> None:
        self._bucket = Bucket(settings)
        self._threads = Threads()
        self._limits = limits or WorkspaceLimits()
        self.logs = LogSegments(self._bucket, self._threads)

    async def ensure_bucket(self) -> None:
        """Create the bucket if it is missing. Many processes may do so at once."""
        await self._threads.call(lambda _: self._bucket.create())

    async def check(self) -> None:
        """Return if the bucket can be used."""
        await self._threads.call(lambda _: self._bucket.check())

    def run(self, user_id: str, run_id: str, fence: int, files: Mapping[str, FileEntry]) -> S3RunFiles:
        """The workspace of one claimed run, whose record names `files`; kept for as long as the claim is held."""
        return S3RunFiles(self._bucket, self._threads, run_prefix(user_id, run_id), self._limits, fence, files)

    async def presign_get(
        self, user_id: str, run_id: str, path: str, entry: FileEntry, expires_s: int, *, inline: bool = False
    ) -> str:
        """A URL that anyone may fetch the file with until it expires; a secret, so never log it.

        It downloads as an attachment. With `inline` a browser shows it, if its type is one that cannot run anything
        (see links.py); other types stay attachments. Does not look whether the object is there.
        """
        if not 1 <= expires_s <= MAX_LINK_S:
            raise InvalidInput(f"a link is valid for 1 to {MAX_LINK_S} seconds, not {expires_s}", "expires_s")
        content_type, disposition = served_as(path, inline=inline)
        key = run_prefix(user_id, run_id) + entry.key
        return await self._threads.call(lambda _: self._bucket.link(key, expires_s, content_type, disposition))

    async def delete_run(self, user_id: str, run_id: str) -> int:
        """Delete all objects of a run, its workspace and whatever else is kept below its prefix; returns how many."""
        prefix = run_prefix(user_id, run_id)
        return await self._threads.call(lambda stop: delete_below(self._bucket, prefix, stop))

    def close(self) -> None:
        """Wait for calls under way, then let threads and connections go. Call it off the event loop or at its end."""
        self._threads.close()
        self._bucket.close()
