"""Synchronisation of a local directory with a run's files in the object store.

A change in the directory is found in two steps: a file whose stamp (size, times, inode) equals the stamp noted at the
last comparison is unchanged; any other file is read and its digest compared.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.contract.files import FileChanges, FileEntry
from infra.contract.paths import RESERVED
from infra.logging import log
from infra.workspace.bucket import Bucket
from infra.workspace.cancellation import Cancellation
from infra.workspace.file_index import FileIndex, entry_of, info_of, is_reserved
from infra.workspace.inputs import verified
from infra.workspace.limits import WorkspaceLimits
from infra.workspace.threads import each
from infra.workspace.tree import Scan, Stamp, Tree, parents

MAX_SKIPPED = 100
"""Maximum number of skipped names that are listed."""
STAMP_GRAIN_NS = 50_000_000
"""Upper bound for a tick of the kernel's clock for file times. A file may change twice within one tick and keep its
times, so a stamp that was younger than this when it was noted does not prove that the file is unchanged."""


@dataclass(frozen=True)
class _Content:
    """Content of a local file. It was read after `noted_ns`."""

    stamp: Stamp
    digest: bytes
    noted_ns: int

    def equals(self, other: "_Content") -> bool:
        """Return True if both would be stored as the same file."""
        return self.digest == other.digest and self.stamp.executable == other.stamp.executable


@dataclass(frozen=True)
class _SyncedFile:
    """Local file at the time when it was equal to the object with this key."""

    key: str
    content: _Content

    def is_unchanged(self, stamp: Stamp) -> bool:
        """Return True if the stamp alone proves that the file is unchanged."""
        return stamp == self.content.stamp and stamp.ctime_ns + STAMP_GRAIN_NS < self.content.noted_ns


class DirectorySync:
    """Copies a run's files into a directory, and changes of the directory into the store. All methods block.

    Remembers which file equals which object. `materialise` and `store_changes` must not overlap, and no program may run
    in the directory during either. If one file's path is a folder of another file's path, the directory can hold only
    the folder; both files stay in the store.
    """

    def __init__(self, bucket: Bucket, prefix: str, index: FileIndex, limits: WorkspaceLimits) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._index = index
        self._limits = limits
        self._directory: Path | None = None
        self._synced: dict[str, _SyncedFile] = {}

    def materialise(self, directory: Path, cancellation: Cancellation) -> None:
        """Make `directory` hold exactly the run's files. Files fetched before an error are not fetched again."""
        self._use(directory)
        wanted = _without_hidden(self._index.files)
        with Tree(directory) as tree:
            local = tree.prune(wanted)
            self._synced = {path: synced for path, synced in self._synced.items() if path in local}

            def update(path: str) -> None:
                synced = self._synced.get(path)
                # PermissionError: a program locked the file. It is replaced by a new copy.
                with suppress(PermissionError):
                    if synced and synced.key == wanted[path].key and not self._changed(tree, path, local[path]):
                        return
                self._fetch(tree, path, wanted[path])

            each(update, sorted(wanted), cancellation)

    def store_changes(self, directory: Path, cancellation: Cancellation) -> FileChanges:
        """Store the changes in `directory` since `materialise`, except in `.run/`, and add them to the index.

        Links, special files and names that are no workspace path are skipped. Raises LimitExceeded before anything is
        stored. After any error the index is unchanged, and a further call stores all changes.
        """
        self._use(directory)
        with Tree(directory) as tree:
            files, skipped = self._scan(tree)
            changed: dict[str, _Content] = {}
            unreadable: list[str] = []

            def compare(path: str) -> None:
                try:
                    if content := self._changed(tree, path, files[path]):
                        changed[path] = content
                except PermissionError:
                    unreadable.append(path)

            each(compare, files, cancellation)
            entries = each(lambda path: self._store(tree, path, changed[path]), sorted(changed), cancellation)
        deleted = sorted(path for path in self._synced if path not in files and not is_reserved(path))
        for path, entry in zip(sorted(changed), entries, strict=True):
            self._index.set(path, entry)
            self._synced[path] = _SyncedFile(entry.key, changed[path])
        for path in deleted:
            self._index.set(path, None)
            del self._synced[path]
        written = [info_of(path, self._index.files[path]) for path in sorted(changed)]
        return FileChanges(written=written, deleted=deleted, skipped=_shortened(sorted([*skipped, *unreadable])))

    def check(self, directory: Path) -> None:
        """Raise LimitExceeded if `directory` holds more than could be stored."""
        with Tree(directory) as tree:
            self._scan(tree)

    def _use(self, directory: Path) -> None:
        # The remembered files belong to one directory only.
        if directory != self._directory:
            self._directory, self._synced = directory, {}

    def _scan(self, tree: Tree) -> Scan:
        scan = tree.scan(RESERVED, self._limits.entries)
        self._limits.check({path: stamp.size_bytes for path, stamp in scan.files.items()})
        return scan

    def _changed(self, tree: Tree, path: str, stamp: Stamp) -> _Content | None:
        """Return the local file's content if it differs from the store. Raises PermissionError if it is unreadable."""
        synced = self._synced.get(path)
        if synced and synced.is_unchanged(stamp):
            return None
        noted_ns = time.time_ns()
        content = _Content(*tree.digest(path), noted_ns)
        if not synced or not content.equals(synced.content):
            return content
        # Equal, with a new stamp: remember it, so that the next comparison need not read the file.
        self._synced[path] = _SyncedFile(synced.key, content)
        return None

    def _fetch(self, tree: Tree, path: str, entry: FileEntry) -> None:
        with self._bucket.open(self._prefix + entry.key) as chunks:
            stamp, digest = tree.write(path, verified(path, entry, chunks), executable=entry.executable)
        self._synced[path] = _SyncedFile(entry.key, _Content(stamp, digest, time.time_ns()))

    def _store(self, tree: Tree, path: str, content: _Content) -> FileEntry:
        key, size_bytes = self._index.new_file_key(path), content.stamp.size_bytes
        with tree.open(path) as fd, os.fdopen(fd, "rb", closefd=False) as file:
            stored = self._bucket.put(self._prefix + key, file, size_bytes)
        return entry_of(key, stored, executable=content.stamp.executable)


def _without_hidden(files: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """Return the files that the directory can hold: a file whose path is a folder of another file is left out."""
    folders = {folder for path in files for folder in parents(path)}
    for path in sorted(folders & files.keys()):
        log("workspace.file_hidden", path=path)
    return {path: entry for path, entry in files.items() if path not in folders}


def _shortened(skipped: list[str]) -> list[str]:
    if len(skipped) <= MAX_SKIPPED:
        return skipped
    return [*skipped[:MAX_SKIPPED], f"… and {len(skipped) - MAX_SKIPPED} more"]
