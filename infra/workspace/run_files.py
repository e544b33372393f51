"""Workspace of one claimed run in S3: implements the ports of infra.contract.files and .lending.

When does a file written by a tool count? `write` and `store_changes` store its bytes immediately, under a new object
key, and note the change in the FileIndex. The change counts when `take_uncommitted` hands it to the run's next fenced
write, which stores it in the record together with the result of the step and its events, or not at all. Only the record
names the objects that count. Objects of a write that never came (the worker died, its lease was lost) stay
unreferenced until the run is deleted.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import structs

from infra.contract.files import MAX_FOLDERS, Changes, FileChanges, FileEntry, FileInfo, FolderChanges, FolderEntry
from infra.contract.lending import LentWorkspace, Loan, ObjectName, ReturnedChanges
from infra.contract.paths import is_reserved, workspace_path
from infra.workspace.bucket import Bucket
from infra.workspace.directory_sync import DirectorySync
from infra.workspace.file_index import FileIndex, entry_of, info_of, mode_of
from infra.workspace.inputs import read_file
from infra.workspace.limits import WorkspaceLimits
from infra.workspace.loans import Loans
from infra.workspace.threads import Threads, each


class S3RunFiles:
    """Workspace of one claimed run: ToolFiles, DirectoryFiles, LendableFiles, JournaledFiles over one FileIndex.

    Create one object for each claim, with an index of the files and folders of the run's record.
    """

    def __init__(
        self,
        bucket: Bucket,
        threads: Threads,
        prefix: str,
        limits: WorkspaceLimits,
        index: FileIndex,
    ) -> None:
        self._bucket = bucket
        self._threads = threads
        self._prefix = prefix
        self._limits = limits
        self._index = index
        self._sync = DirectorySync(bucket, prefix, index, limits)
        self._loans = Loans(bucket, prefix, index, limits)

    # ToolFiles

    async def read(self, path: str, max_bytes: int | None = None, offset: int = 0) -> bytes:
        """Return all bytes of a file, or at most `max_bytes` of them from `offset` on.

        An input file is read to its end even if only a part is wanted. Raises FileMissing, FilesUnavailable,
        InputChanged.
        """
        entry = self._index.get(path)
        key = self._prefix + entry.key
        return await self._threads.call(lambda _: read_file(self._bucket, key, path, entry, max_bytes, offset))

    async def write(self, path: str, data: bytes) -> FileInfo:
        """Store a whole file; an existing one keeps its permissions. Raises LimitExceeded, FilesUnavailable."""
        # `.run/` is allowed here, because the platform writes there; tools are refused when their arguments are
        # validated. Files in it have a size limit each, but do not count towards the limits of the workspace.
        key = self._index.new_file_key(workspace_path(path))
        self._limits.check_file(path, len(data))
        if not is_reserved(path):
            self._limits.check(self._index.sizes() | {path: len(data)})
        stored = await self._threads.call(lambda _: self._bucket.put(self._prefix + key, data, len(data)))
        previous = self._index.files.get(path)
        entry = entry_of(key, stored, mode=mode_of(previous) if previous else 0o644, mtime_ns=time.time_ns())
        self._index.set(path, entry)
        for folder in [known for known in self._index.folders if f"{known}/".startswith(f"{path}/")]:
            self._index.set_folder(folder, None)
        return info_of(path, entry)

    async def list(self, folder: str = "") -> list[FileInfo]:
        """Return all files, or the files below one folder, sorted by path."""
        below = f"{workspace_path(folder, field='folder')}/" if folder else ""
        return [info_of(path, entry) for path, entry in sorted(self._index.files.items()) if path.startswith(below)]

    async def delete(self, path: str) -> None:
        """Delete a file. Its folder stays, as on any machine. Raises FileMissing."""
        self._index.get(path)
        self._index.set(path, None)
        folder, index = path.rpartition("/")[0], self._index
        if not folder or is_reserved(folder) or len(index.folders) >= MAX_FOLDERS:
            return
        if not any(f"{known}/".startswith(f"{folder}/") for known in (*index.files, *index.folders)):
            index.set_folder(folder, FolderEntry())

    # DirectoryFiles

    async def materialise(self, directory: Path) -> None:
        """Make `directory` hold exactly the workspace's files and folders, as the last step left them.

        Fetches only missing files. Permissions and the modification times of files are restored; times of folders,
        owners, links and extended attributes are not. New files belong to the worker; the executor gives them to the
        sandbox's user. Raises FilesUnavailable, InputChanged, HostExhausted; a further call does not fetch again what
        was fetched before the error.
        """
        await self._threads.call(lambda cancellation: self._sync.materialise(directory, cancellation))

    async def store_changes(self, directory: Path) -> FileChanges:
        """Store what changed in `directory` since `materialise`, except in `.run/`.

        Links, special files and names that are no workspace path are skipped, never followed. Raises LimitExceeded
        before anything is stored. After FilesUnavailable no file counts as changed; a further call stores all changes.
        """
        return await self._threads.call(lambda cancellation: self._sync.store_changes(directory, cancellation))

    async def check(self, directory: Path) -> None:
        """Raise LimitExceeded if `directory` holds more than could be stored."""
        await self._threads.call(lambda _: self._sync.check(directory))

    # LendableFiles

    async def lend(self, slots: int, expires_s: int) -> tuple[Loan, LentWorkspace]:
        """Return the workspace as signed URLs for a pod."""
        return await self._threads.call(lambda _: self._loans.lend(slots, expires_s))

    async def publish(self, loan: Loan, manifest: bytes) -> None:
        """Store the manifest of a loan."""
        await self._threads.call(lambda _: self._loans.publish(loan, manifest))

    async def manifest_url(self, loan: Loan, expires_s: int) -> str:
        """Return a URL of the manifest of a loan, which is a secret."""
        return await self._threads.call(lambda _: self._loans.manifest_url(loan, expires_s))

    async def withdraw(self, loan: Loan) -> None:
        """Delete the manifest of a loan. A pod that has not fetched the manifest will not run its program."""
        await self._threads.call(lambda _: self._loans.withdraw(loan))

    async def fetch(self, loan: Loan, name: ObjectName, max_bytes: int) -> bytes:
        """Return at most the first `max_bytes` of an object of a loan. Raises FileMissing."""
        return await self._threads.call(lambda _: self._loans.fetch(loan, name, max_bytes))

    async def save(self, loan: Loan, name: ObjectName, max_bytes: int, target: Path) -> None:
        """Write at most the first `max_bytes` of an object of a loan into a file. Raises FileMissing."""
        await self._threads.call(lambda _: self._loans.save(loan, name, max_bytes, target))

    async def take_back(self, loan: Loan, changes: ReturnedChanges) -> FileChanges:
        """Add the changes that a pod reports. Raises LimitExceeded, and InvalidInput for what no runner returns."""
        return await self._threads.call(lambda cancellation: self._loans.take_back(loan, changes, cancellation))

    # JournaledFiles

    def take_uncommitted(self) -> dict[str, FileEntry | None]:
        """Return and forget the changes of files since the last call, for the run's next fenced write."""
        return self._index.take_uncommitted()

    def take_uncommitted_folders(self) -> dict[str, FolderEntry | None]:
        """Return and forget the changes of folders since the last call, for the run's next fenced write."""
        return self._index.take_uncommitted_folders()

    def adopt_folders(self, changes: Sequence[FolderChanges]) -> None:
        """Repeat here the changes of folders made in another run's workspace."""
        for change in changes:
            for path, entry in change.items():
                self._index.set_folder(path, entry)

    async def adopt(self, source: "S3RunFiles", changes: Sequence[Changes]) -> Sequence[Changes]:
        """Repeat here the changes of files made in another run's workspace; return them with entries of this run.

        Copies every object within the store, those included that a later change overwrites: a further fork may need
        the workspace as it was after any of the steps.
        """
        # Several steps name the same object if they changed only its time or permissions.
        objects = {entry.key: path for change in changes for path, entry in change.items() if entry}

        def copy(source_key: str) -> str:
            key = self._index.new_file_key(objects[source_key])
            self._bucket.copy(source._prefix + source_key, self._prefix + key)
            return key

        copies = await self._threads.call(lambda cancellation: each(copy, objects, cancellation))
        keys = dict(zip(objects, copies, strict=True))
        adopted = [
            {path: entry and structs.replace(entry, key=keys[entry.key]) for path, entry in change.items()}
            for change in changes
        ]
        for change in adopted:
            for path, entry in change.items():
                self._index.set(path, entry)
        return adopted

    async def put_blob(self, data: bytes) -> str:
        """Store bytes that are no file of the workspace; return the name for `get_blob`."""
        name = self._index.new_blob_name()
        await self._threads.call(lambda _: self._bucket.put(self._prefix + name, data, len(data)))
        return name

    async def get_blob(self, name: str) -> bytes:
        """Return the bytes of a blob. Raises FileMissing."""
        return await self._threads.call(lambda _: self._bucket.get(self._prefix + name, None))
