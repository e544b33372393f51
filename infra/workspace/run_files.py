"""The workspace of one claimed run: single files, and a local directory kept in step with the store."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from infra.contract.errors import FileMissing
from infra.contract.models import FileChanges, FileInfo
from infra.contract.paths import RESERVED, workspace_path
from infra.logging import log
from infra.workspace.bucket import Bucket, Stored
from infra.workspace.deletion import delete_all
from infra.workspace.limits import WorkspaceLimits
from infra.workspace.object_keys import path_of
from infra.workspace.threads import Threads, each
from infra.workspace.tree import Stamp, Tree, parents

SKIPPED_SHOWN = 100
STAMP_GRAIN_NS = 50_000_000
"""A file may change twice within one tick of the kernel's clock and keep its times: a stamp younger than this when it
was noted proves nothing, so the content decides."""


@dataclass(frozen=True)
class _Content:
    """What was in a local file; it was read after `noted_ns`."""

    stamp: Stamp
    digest: bytes
    noted_ns: int

    def equals(self, other: "_Content") -> bool:
        """Whether both would be stored alike."""
        return self.digest == other.digest and self.stamp.executable == other.stamp.executable


@dataclass(frozen=True)
class _Known:
    """A local file as it was when it equalled the object with this etag."""

    etag: str
    content: _Content

    def settled(self, stamp: Stamp) -> bool:
        """Whether the stamp alone proves that the file is unchanged."""
        return stamp == self.content.stamp and stamp.ctime_ns + STAMP_GRAIN_NS < self.content.noted_ns


class S3RunFiles:
    """RunFiles over S3. One object for each claimed run: it remembers what `materialise` put where.

    `materialise` and `store_changes` must not overlap, and no program may run in the directory during either.
    Two files of which one is named like a folder of the other can both be in the store; on disk the folder wins.
    """

    def __init__(self, bucket: Bucket, threads: Threads, prefix: str, limits: WorkspaceLimits) -> None:
        self._bucket = bucket
        self._threads = threads
        self._prefix = prefix
        self._limits = limits
        self._directory: Path | None = None
        self._known: dict[str, _Known] = {}

    async def read(self, path: str, max_bytes: int | None = None) -> bytes:
        """The file's bytes, at most the first `max_bytes`. Raises FileMissing, FilesUnavailable."""
        key = self._key(path)
        return await self._threads.call(lambda _: self._bucket.get(key, max_bytes))

    async def write(self, path: str, data: bytes) -> FileInfo:
        """Store a whole file, `.run/` included: what a tool may write is checked with its arguments.

        Raises LimitExceeded for a file that is too large; what all files may have is checked by `store_changes`.
        """
        key = self._key(path)
        self._limits.check_file(path, len(data))
        return self._info(path, await self._threads.call(lambda _: self._bucket.put(key, data, len(data))))

    async def list(self, folder: str = "") -> list[FileInfo]:
        """All files, or those below one folder, sorted by path; keys that are no workspace paths are left out."""
        below = f"{workspace_path(folder, field='folder')}/" if folder else ""
        found = await self._threads.call(lambda _: self._remote(below))
        return [self._info(path, stored) for path, stored in sorted(found.items())]

    async def delete(self, path: str) -> None:
        """Delete a file. Raises FileMissing: S3 itself does not tell, so it is asked first."""
        key = self._key(path)

        def deletion(_: Event) -> None:
            self._bucket.head(key)
            self._bucket.delete(key)

        await self._threads.call(deletion)

    async def materialise(self, directory: Path) -> None:
        """Make `directory` hold just the workspace's files; whatever else is there, empty folders too, is removed.

        Fetches only what is not there yet. New files are 0644 (0755 if they were executable when stored) and belong
        to the worker; the executor hands them to the sandbox's user. Raises FilesUnavailable; what was fetched until
        then is kept and not fetched again.
        """
        await self._threads.call(lambda stop: self._materialise(directory, stop))

    async def store_changes(self, directory: Path) -> FileChanges:
        """Store what changed in `directory` since it was materialised, except in `.run/`.

        Links, special files, and names that are no workspace path are skipped, never followed. Raises LimitExceeded
        before anything is stored. After FilesUnavailable a part may be stored; a further call stores the rest.
        """
        return await self._threads.call(lambda stop: self._store_changes(directory, stop))

    def _materialise(self, directory: Path, stop: Event) -> None:
        self._attend(directory)
        remote = _without_hidden(self._remote())
        with Tree(directory) as tree:
            local = tree.prune(remote)
            self._known = {path: known for path, known in self._known.items() if path in local}

            def bring(path: str) -> None:
                known = self._known.get(path)
                with suppress(PermissionError):  # a tool locked it: replaced by a fresh one
                    if known and known.etag == remote[path].etag and not self._changed(tree, path, local[path]):
                        return
                try:
                    self._fetch(tree, path)
                except FileMissing:
                    log("workspace.file_gone", path=path)  # deleted since it was listed

            each(bring, sorted(remote), stop)

    def _fetch(self, tree: Tree, path: str) -> None:
        with self._bucket.opened(self._key(path)) as opened:
            stamp, digest = tree.write(path, opened.chunks, executable=opened.executable)
        self._known[path] = _Known(opened.etag, _Content(stamp, digest, time.time_ns()))

    def _store_changes(self, directory: Path, stop: Event) -> FileChanges:
        self._attend(directory)
        with Tree(directory) as tree:
            files, skipped = tree.scan(RESERVED, self._limits.entries)
            self._limits.check({path: stamp.size_bytes for path, stamp in files.items()})
            changed: dict[str, _Content] = {}
            unreadable: list[str] = []

            def compare(path: str) -> None:
                try:
                    if content := self._changed(tree, path, files[path]):
                        changed[path] = content
                except PermissionError:
                    unreadable.append(path)

            each(compare, files, stop)
            written = each(lambda path: self._store(tree, path, changed[path]), sorted(changed), stop)
        gone = sorted(path for path in self._known if path not in files and not _reserved(path))
        delete_all(self._bucket, [self._key(path) for path in gone], stop)
        for path in gone:
            del self._known[path]
        return FileChanges(written=written, deleted=gone, skipped=_shortened(sorted([*skipped, *unreadable])))

    def _changed(self, tree: Tree, path: str, stamp: Stamp) -> _Content | None:
        """The local file's content if it differs from what is known. Raises PermissionError if it cannot be read."""
        known = self._known.get(path)
        if known and known.settled(stamp):
            return None
        noted_ns = time.time_ns()
        content = _Content(*tree.digest(path), noted_ns)
        if not known or not content.equals(known.content):
            return content
        self._known[path] = _Known(known.etag, content)
        return None

    def _store(self, tree: Tree, path: str, content: _Content) -> FileInfo:
        with tree.opened(path) as fd, os.fdopen(fd, "rb", closefd=False) as file:
            size_bytes, executable = content.stamp.size_bytes, content.stamp.executable
            stored = self._bucket.put(self._key(path), file, size_bytes, executable=executable)
        self._known[path] = _Known(stored.etag, content)
        return self._info(path, stored)

    def _remote(self, below: str = "") -> dict[str, Stored]:
        found = ((path_of(item.key, self._prefix), item) for item in self._bucket.list(self._prefix + below))
        return {path: item for path, item in found if path}

    def _attend(self, directory: Path) -> None:
        """What is known holds for one directory only."""
        if directory != self._directory:
            self._directory, self._known = directory, {}

    def _key(self, path: str) -> str:
        return self._prefix + workspace_path(path)

    def _info(self, path: str, stored: Stored) -> FileInfo:
        return FileInfo(path=path, size_bytes=stored.size_bytes, modified_ms=stored.modified_ms)


def _without_hidden(remote: dict[str, Stored]) -> dict[str, Stored]:
    """What can be on disk: a file named like a folder of another one cannot."""
    folders = {folder for path in remote for folder in parents(path)}
    for path in sorted(folders & remote.keys()):
        log("workspace.file_hidden", path=path)
    return {path: stored for path, stored in remote.items() if path not in folders}


def _reserved(path: str) -> bool:
    return path.split("/", 1)[0] == RESERVED


def _shortened(skipped: list[str]) -> list[str]:
    if len(skipped) <= SKIPPED_SHOWN:
        return skipped
    return [*skipped[:SKIPPED_SHOWN], f"… and {len(skipped) - SKIPPED_SHOWN} more"]
