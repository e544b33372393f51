"""Synchronisation of a local directory with a run's files in the object store.

A change in the directory is found in two steps: a file whose stamp (size, times, inode, mode) equals the stamp noted at
the last comparison is unchanged; any other file is read and its digest compared. If the digest is the same, only the
file's time and permissions are noted in its entry, which keeps its object.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.contract.files import MAX_FOLDERS, FileChanges, FileEntry, FolderEntry
from infra.contract.paths import RESERVED, is_reserved, parents
from infra.logging import log
from infra.workspace.bucket import Bucket
from infra.workspace.cancellation import Cancellation
from infra.workspace.file_index import (
    FileIndex,
    entry_of,
    info_of,
    mode_of,
    mtime_ns_of,
    with_metadata,
)
from infra.workspace.inputs import verified
from infra.workspace.limits import WorkspaceLimits
from infra.workspace.threads import each
from infra.workspace.tree import FOLDER_MODE, Scan, Stamp, Tree, shortened


@dataclass(frozen=True)
class _Content:
    """Content of a local file. It was read after `noted_ns`."""

    stamp: Stamp
    digest: bytes
    noted_ns: int

    def has_metadata_of(self, other: "_Content") -> bool:
        """Return True if both have the same modification time and permissions."""
        return (self.stamp.mtime_ns, self.stamp.mode) == (other.stamp.mtime_ns, other.stamp.mode)


@dataclass(frozen=True)
class _SyncedFile:
    """Local file at the time when it was equal to the object with this key."""

    key: str
    content: _Content

    def is_unchanged(self, stamp: Stamp) -> bool:
        """Return True if the stamp alone proves that the file is unchanged."""
        return stamp.proves_equal(self.content.stamp, self.content.noted_ns)


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
        """Make `directory` hold exactly the run's files and folders.

        Files fetched before an error are not fetched again.
        """
        self._use(directory)
        wanted = without_hidden(self._index.files)
        folders = folder_modes(wanted, self._index.folders)
        with Tree(directory) as tree:
            local = tree.prune(wanted, folders)
            self._synced = {path: synced for path, synced in self._synced.items() if path in local.files}
            for path in sorted(folders.keys() - local.folders.keys()):
                tree.make_folder(path)

            def update(path: str) -> None:
                synced = self._synced.get(path)
                # PermissionError: a program locked the file. It is replaced by a new copy.
                with suppress(PermissionError):
                    if synced and synced.key == wanted[path].key and not self._changed(tree, path, local.files[path]):
                        return
                self._fetch(tree, path, wanted[path])

            each(update, sorted(wanted), cancellation)
            # At the end, because nothing can be made in a locked folder.
            tree.set_folder_modes({path: mode for path, mode in folders.items() if local.folders.get(path) != mode})

    def store_changes(self, directory: Path, cancellation: Cancellation) -> FileChanges:
        """Store the changes in `directory` since `materialise`, except in `.run/`, and add them to the index.

        Changed times and permissions, and folders that no file implies, are noted in the index alone. Links, special
        files and names that are no workspace path are skipped. Raises LimitExceeded before anything is stored. After
        any error the index is unchanged, and a further call stores all changes.
        """
        self._use(directory)
        with Tree(directory) as tree:
            scan = self._scan(tree)
            files = scan.files
            changed: dict[str, _Content] = {}
            unreadable: list[str] = []

            def compare(path: str) -> None:
                try:
                    if content := self._changed(tree, path, files[path]):
                        changed[path] = content
                except PermissionError:
                    unreadable.append(path)

            each(compare, files, cancellation)
            rewritten = sorted(path for path, content in changed.items() if self._differs(path, content))
            entries = each(lambda path: self._store(tree, path, changed[path]), rewritten, cancellation)
        deleted = sorted(path for path in self._synced if path not in files and not is_reserved(path))
        for path in changed.keys() - set(rewritten):
            stamp = changed[path].stamp
            self._index.set(path, with_metadata(self._index.files[path], mode=stamp.mode, mtime_ns=stamp.mtime_ns))
            self._synced[path] = _SyncedFile(self._index.files[path].key, changed[path])
        for path, entry in zip(rewritten, entries, strict=True):
            self._index.set(path, entry)
            self._synced[path] = _SyncedFile(entry.key, changed[path])
        for path in deleted:
            self._index.set(path, None)
            del self._synced[path]
        return FileChanges(
            written=[info_of(path, self._index.files[path]) for path in rewritten],
            deleted=deleted,
            skipped=shortened([*scan.skipped, *unreadable]),
            unkept_folders=self._note_folders(scan),
        )

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

    def _note_folders(self, scan: Scan) -> int:
        """Update the index with the special folders of a scan; return the number beyond MAX_FOLDERS."""
        modes, unkept = scan.special_folders(MAX_FOLDERS)
        found = {path: FolderEntry(mode=None if mode == FOLDER_MODE else mode) for path, mode in modes.items()}
        for path in self._index.folders.keys() - found.keys():
            self._index.set_folder(path, None)
        for path, entry in found.items():
            if self._index.folders.get(path) != entry:
                self._index.set_folder(path, entry)
        return unkept

    def _differs(self, path: str, content: _Content) -> bool:
        """Return True if the store does not have the content, whatever its metadata."""
        synced = self._synced.get(path)
        return synced is None or synced.content.digest != content.digest

    def _changed(self, tree: Tree, path: str, stamp: Stamp) -> _Content | None:
        """Return the local file's content if it, its time or its permissions differ from what the index has.

        Raises PermissionError if the file is unreadable.
        """
        synced = self._synced.get(path)
        if synced and synced.is_unchanged(stamp):
            return None
        noted_ns = time.time_ns()
        content = _Content(*tree.digest(path), noted_ns)
        if not synced or self._differs(path, content) or not content.has_metadata_of(synced.content):
            return content
        # Equal, with a new stamp: remember it, so that the next comparison need not read the file.
        self._synced[path] = _SyncedFile(synced.key, content)
        return None

    def _fetch(self, tree: Tree, path: str, entry: FileEntry) -> None:
        with self._bucket.open(self._prefix + entry.key) as chunks:
            content = verified(path, entry, chunks)
            stamp, digest = tree.write(path, content, mode=mode_of(entry), mtime_ns=mtime_ns_of(entry))
        self._synced[path] = _SyncedFile(entry.key, _Content(stamp, digest, time.time_ns()))

    def _store(self, tree: Tree, path: str, content: _Content) -> FileEntry:
        key, size_bytes = self._index.new_file_key(path), content.stamp.size_bytes
        with tree.open(path) as fd, os.fdopen(fd, "rb", closefd=False) as file:
            stored = self._bucket.put(self._prefix + key, file, size_bytes)
        return entry_of(key, stored, mode=content.stamp.mode, mtime_ns=content.stamp.mtime_ns)


def without_hidden(files: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """Return the files that the directory can hold: a file whose path is a folder of another file is left out."""
    folders = {folder for path in files for folder in parents(path)}
    for path in sorted(folders & files.keys()):
        log("workspace.file_hidden", path=path)
    return {path: entry for path, entry in files.items() if path not in folders}


def folder_modes(files: Mapping[str, FileEntry], folders: Mapping[str, FolderEntry]) -> dict[str, int]:
    """Return the mode of each folder of the directory. A file wins over a folder in its way."""
    held = {path: entry for path, entry in folders.items() if files.keys().isdisjoint((path, *parents(path)))}
    modes = {folder: FOLDER_MODE for path in (*files, *held) for folder in parents(path)}
    return modes | {path: FOLDER_MODE if entry.mode is None else entry.mode for path, entry in held.items()}
