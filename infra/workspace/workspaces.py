"""Entry point of the API and the worker to the objects of runs: their workspaces and archived logs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from infra.contract.errors import InvalidInput
from infra.contract.files import NO_FOLDERS, FileEntry, FolderEntry
from infra.settings import S3Settings
from infra.workspace.bucket import Bucket
from infra.workspace.client import TrafficObserver
from infra.workspace.deletion import delete_below
from infra.workspace.inputs import missing_uploads, new_upload, upload_headers
from infra.workspace.inventory import Inventory
from infra.workspace.limits import WorkspaceLimits
from infra.workspace.links import PASSIVE, can_be_inline, served_as
from infra.workspace.log_segments import LogSegments
from infra.workspace.object_keys import run_prefix
from infra.workspace.threads import Threads

if TYPE_CHECKING:
    from infra.workspace.run_files import S3RunFiles

MAX_LINK_S = 7 * 24 * 3600
"""Maximum validity of a link that the signature allows."""


class Workspaces:
    """Workspaces and archived logs in one bucket. The client is created with the first call.

    Methods raise FilesUnavailable if the store fails, and InvalidInput for an id or path that a key cannot contain.
    """

    def __init__(
        self, settings: S3Settings, limits: WorkspaceLimits | None = None, observer: TrafficObserver | None = None
    ) -> None:
        self._bucket = Bucket(settings, observer)
        self._threads = Threads()
        self._upload_checksum = settings.upload_checksum
        self.limits = limits or WorkspaceLimits()
        self.logs = LogSegments(self._bucket, self._threads)
        self.inventory = Inventory(self._bucket, self._threads)

    async def connect(self) -> None:
        """Create the client now instead of with the first call, which then is half a second faster. Sends nothing."""
        await self._threads.call(lambda _: self._bucket.connect())

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
    ) -> "S3RunFiles":
        """Return the workspace of one claimed run, whose record names `files` and `folders`.

        Use one object for the whole claim.
        """
        # Only workers call this; a cold start of the API need not import it.
        from infra.workspace.file_index import FileIndex
        from infra.workspace.run_files import S3RunFiles

        index = FileIndex(fence, files, folders)
        return S3RunFiles(self._bucket, self._threads, run_prefix(user_id, run_id), self.limits, index)

    def new_upload(self, path: str, size_bytes: int, sha256: str) -> FileEntry:
        """Return the entry of an input file that is to be uploaded, with an unused object key."""
        return new_upload(path, size_bytes, sha256)

    def upload_headers(self, size_bytes: int, sha256: str, md5: str | None) -> dict[str, str]:
        """Return the headers that the upload of an input file with these digests (hex) must have.

        Raises InvalidInput if this store needs the MD5 and there is none.
        """
        if self._upload_checksum == "sha256":
            return upload_headers(size_bytes, sha256, None)
        if md5 is None:
            raise InvalidInput("the object store of this API checks uploads by MD5; give it as 32 hex digits", "$.md5")
        return upload_headers(size_bytes, sha256, md5)

    async def presign_put(self, user_id: str, run_id: str, key: str, expires_s: int, headers: Mapping[str, str]) -> str:
        """Return a URL with which anyone can store the object `key` of the run until it expires. It is a secret.

        The request must have exactly these headers, see `upload_headers`.
        """
        _check_expiry(expires_s)
        key = run_prefix(user_id, run_id) + key
        return self._bucket.link_for_put(key, expires_s, headers)

    async def missing(self, user_id: str, run_id: str, files: Mapping[str, FileEntry]) -> list[str]:
        """Return the paths of announced files whose objects are missing, or have another size or checksum."""
        prefix = run_prefix(user_id, run_id)
        return await self._threads.call(lambda cancellation: missing_uploads(self._bucket, prefix, files, cancellation))

    def link_type(self, path: str, *, inline: bool) -> str:
        """Return the content type with which a link serves the file. Raises InvalidInput if it cannot be `inline`."""
        if inline and not can_be_inline(path):
            allowed = ", ".join(PASSIVE)
            raise InvalidInput(
                f"a browser may only download this file, because its type can contain programs; allowed inline are "
                f"{allowed}",
                "disposition",
            )
        return served_as(path, inline=inline)[0]

    async def presign_get(
        self, user_id: str, run_id: str, path: str, entry: FileEntry, expires_s: int, *, inline: bool = False
    ) -> str:
        """Return a URL that anyone can fetch the file with until it expires. It is a secret: never log it.

        The file downloads as an attachment. With `inline` a browser shows it if its type cannot run code (see
        links.py). Does not check that the object exists.
        """
        _check_expiry(expires_s)
        content_type, disposition = served_as(path, inline=inline)
        key = run_prefix(user_id, run_id) + entry.key
        return self._bucket.link(key, expires_s, content_type, disposition)

    async def delete_run(self, user_id: str, run_id: str) -> int:
        """Delete all objects below the run's prefix, workspace and archived log; return their number."""
        prefix = run_prefix(user_id, run_id)
        return await self._threads.call(lambda cancellation: delete_below(self._bucket, prefix, cancellation))

    def close(self) -> None:
        """Wait for calls in progress and close threads and connections. Blocks: call it off the event loop."""
        self._threads.close()
        self._bucket.close()


def _check_expiry(expires_s: int) -> None:
    if not 1 <= expires_s <= MAX_LINK_S:
        raise InvalidInput(f"a link is valid for 1 to {MAX_LINK_S} seconds, not {expires_s}", "expires_s")
