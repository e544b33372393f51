"""The workspace of one claimed run: single files, and a local directory kept in step with the store."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from msgspec import structs

from infra.contract.errors import FileMissing
from infra.contract.files import Changes, FileChanges, FileEntry, FileInfo
from infra.contract.paths import RESERVED, workspace_path
from infra.logging import log
from infra.workspace.bucket import Bucket, Stored
from infra.workspace.cancellation import Stop
from infra.workspace.limits import WorkspaceLimits
from infra.workspace.threads import Threads, each
from infra.workspace.tree import Scan, Stamp, Tree, parents

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
    """A local file as it was when it equalled the object with this key."""

    key: str
    content: _Content

    def settled(self, stamp: Stamp) -> bool:
        """Whether the stamp alone proves that the file is unchanged."""
        return stamp == self.content.stamp and stamp.ctime_ns + STAMP_GRAIN_NS < self.content.noted_ns


class S3RunFiles:
    """RunFiles over S3. One object for each claimed run: it remembers what `materialise` put where.

    Each write makes an object of its own, named after the claim's fence: what a worker stores that has lost the run
    is in nobody's way, and is seen by nobody, since the run's record names the objects that count.

    `materialise` and `store_changes` must not overlap, and no program may run in the directory during either.
    Two files of which one is named like a folder of the other can both be in the store; on disk the folder wins.
    """

    def __init__(
        self,
        bucket: Bucket,
        threads: Threads,
        prefix: str,
        limits: WorkspaceLimits,
        fence: int,
        files: Mapping[str, FileEntry],
    ) -> None:
        self._bucket = bucket
        self._threads = threads
        self._prefix = prefix
        self._limits = limits
        self._fence = fence
        self._numbers = count(1)
        self._files = dict(files)
        self._uncommitted: dict[str, FileEntry | None] = {}
        self._directory: Path | None = None
        self._known: dict[str, _Known] = {}

    async def read(self, path: str, max_bytes: int | None = None) -> bytes:
        """The file's bytes, at most the first `max_bytes`. Raises FileMissing, FilesUnavailable."""
        key = self._prefix + self._entry(path).key
        return await self._threads.call(lambda _: self._bucket.get(key, max_bytes))

    async def write(self, path: str, data: bytes) -> FileInfo:
        """Store a whole file, `.run/` included: what a tool may write is checked with its arguments.

        Raises LimitExceeded if the file or all of them are too large; what is in `.run/` does not count among all.
        """
        key = self._new_key(workspace_path(path))
        self._limits.check_file(path, len(data))
        if not _reserved(path):
            self._limits.check(self._sizes() | {path: len(data)})
        stored = await self._threads.call(lambda _: self._bucket.put(self._prefix + key, data, len(data)))
        self._set(path, _entry_of(key, stored))
        return _info(path, self._files[path])

    async def list(self, folder: str = "") -> list[FileInfo]:
        """All files, or those below one folder, sorted by path."""
        below = f"{workspace_path(folder, field='folder')}/" if folder else ""
        return [_info(path, entry) for path, entry in sorted(self._files.items()) if path.startswith(below)]

    async def delete(self, path: str) -> None:
        """Take a file away. Raises FileMissing."""
        self._entry(path)
        self._set(path, None)

    def take_uncommitted(self) -> dict[str, FileEntry | None]:
        """Take what has changed since the last call, for the run's next fenced write."""
        changed, self._uncommitted = self._uncommitted, {}
        return changed

    async def adopt(self, source: "S3RunFiles", changes: Sequence[Changes]) -> Sequence[Changes]:
        """Do here what was done in another run's workspace, change by change; the same with entries of this run.

        Also what later changes undo is copied, within the store: somebody may want the workspace as it was before.
        """
        places = [(number, path) for number, change in enumerate(changes) for path in change]

        def copied(place: tuple[int, str]) -> FileEntry | None:
            number, path = place
            entry = changes[number][path]
            if entry is None:
                return None
            key = self._new_key(path)
            self._bucket.copy(source._prefix + entry.key, self._prefix + key)
            return structs.replace(entry, key=key)

        entries = await self._threads.call(lambda stop: each(copied, places, stop))
        adopted: list[dict[str, FileEntry | None]] = [{} for _ in changes]
        for (number, path), entry in zip(places, entries, strict=True):
            adopted[number][path] = entry
            self._set(path, entry)
        return adopted

    async def put_blob(self, data: bytes) -> str:
        """Store bytes that are no file of the workspace; the name they are kept under."""
        name = f"kept/{self._fence}-{next(self._numbers)}"
        await self._threads.call(lambda _: self._bucket.put(self._prefix + name, data, len(data)))
        return name

    async def get_blob(self, name: str) -> bytes:
        """The bytes that were kept under a name. Raises FileMissing."""
        return await self._threads.call(lambda _: self._bucket.get(self._prefix + name, None))

    async def materialise(self, directory: Path) -> None:
        """Make `directory` hold just the workspace's files; whatever else is there, empty folders too, is removed.

        Fetches only what is not there yet. New files are 0644 (0755 if they were executable when stored) and belong
        to the worker; the executor hands them to the sandbox's user. Raises FilesUnavailable, HostExhausted; what was
        fetched until then is kept and not fetched again.
        """
        await self._threads.call(lambda stop: self._materialise(directory, stop))

    async def store_changes(self, directory: Path) -> FileChanges:
        """Store what changed in `directory` since it was materialised, except in `.run/`.

        Links, special files, and names that are no workspace path are skipped, never followed. Raises LimitExceeded
        before anything is stored. After FilesUnavailable nothing counts as changed; a further call stores all of it.
        """
        return await self._threads.call(lambda stop: self._store_changes(directory, stop))

    async def check(self, directory: Path) -> None:
        """Raise LimitExceeded if `directory` holds more than could be stored."""

        def check() -> None:
            with Tree(directory) as tree:
                self._scan(tree)

        await self._threads.call(lambda _: check())

    def _materialise(self, directory: Path, stop: Stop) -> None:
        self._attend(directory)
        wanted = _without_hidden(self._files)
        with Tree(directory) as tree:
            local = tree.prune(wanted)
            self._known = {path: known for path, known in self._known.items() if path in local}

            def bring(path: str) -> None:
                known = self._known.get(path)
                with suppress(PermissionError):  # a tool locked it: replaced by a fresh one
                    if known and known.key == wanted[path].key and not self._changed(tree, path, local[path]):
                        return
                self._fetch(tree, path, wanted[path])

            each(bring, sorted(wanted), stop)

    def _fetch(self, tree: Tree, path: str, entry: FileEntry) -> None:
        with self._bucket.opened(self._prefix + entry.key) as chunks:
            stamp, digest = tree.write(path, chunks, executable=entry.executable)
        self._known[path] = _Known(entry.key, _Content(stamp, digest, time.time_ns()))

    def _store_changes(self, directory: Path, stop: Stop) -> FileChanges:
        self._attend(directory)
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

            each(compare, files, stop)
            stored = each(lambda path: self._store(tree, path, changed[path]), sorted(changed), stop)
        gone = sorted(path for path in self._known if path not in files and not _reserved(path))
        for path, entry in zip(sorted(changed), stored, strict=True):
            self._set(path, entry)
            self._known[path] = _Known(entry.key, changed[path])
        for path in gone:
            self._set(path, None)
            del self._known[path]
        written = [_info(path, self._files[path]) for path in sorted(changed)]
        return FileChanges(written=written, deleted=gone, skipped=_shortened(sorted([*skipped, *unreadable])))

    def _scan(self, tree: Tree) -> Scan:
        scan = tree.scan(RESERVED, self._limits.entries)
        self._limits.check({path: stamp.size_bytes for path, stamp in scan.files.items()})
        return scan

    def _changed(self, tree: Tree, path: str, stamp: Stamp) -> _Content | None:
        """The local file's content if it differs from what is known. Raises PermissionError if it cannot be read."""
        known = self._known.get(path)
        if known and known.settled(stamp):
            return None
        noted_ns = time.time_ns()
        content = _Content(*tree.digest(path), noted_ns)
        if not known or not content.equals(known.content):
            return content
        self._known[path] = _Known(known.key, content)
        return None

    def _store(self, tree: Tree, path: str, content: _Content) -> FileEntry:
        key, size_bytes = self._new_key(path), content.stamp.size_bytes
        with tree.opened(path) as fd, os.fdopen(fd, "rb", closefd=False) as file:
            stored = self._bucket.put(self._prefix + key, file, size_bytes)
        return _entry_of(key, stored, executable=content.stamp.executable)

    def _attend(self, directory: Path) -> None:
        """What is known holds for one directory only."""
        if directory != self._directory:
            self._directory, self._known = directory, {}

    def _entry(self, path: str) -> FileEntry:
        entry = self._files.get(workspace_path(path))
        if entry is None:
            raise FileMissing(f"there is no file '{path}'")
        return entry

    def _set(self, path: str, entry: FileEntry | None) -> None:
        self._uncommitted[path] = entry
        if entry:
            self._files[path] = entry
        else:
            self._files.pop(path, None)

    def _sizes(self) -> dict[str, int]:
        return {path: entry.size_bytes for path, entry in self._files.items() if not _reserved(path)}

    def _new_key(self, path: str) -> str:
        return f"files/{self._fence}-{next(self._numbers)}/{path}"


def _entry_of(key: str, stored: Stored, *, executable: bool = False) -> FileEntry:
    return FileEntry(key=key, size_bytes=stored.size_bytes, modified_ms=stored.modified_ms, executable=executable)


def _info(path: str, entry: FileEntry) -> FileInfo:
    return FileInfo(path=path, size_bytes=entry.size_bytes, modified_ms=entry.modified_ms)


def _without_hidden(files: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """What can be on disk: a file named like a folder of another one cannot."""
    folders = {folder for path in files for folder in parents(path)}
    for path in sorted(folders & files.keys()):
        log("workspace.file_hidden", path=path)
    return {path: entry for path, entry in files.items() if path not in folders}


def _reserved(path: str) -> bool:
    return path.split("/", 1)[0] == RESERVED


def _shortened(skipped: list[str]) -> list[str]:
    if len(skipped) <= SKIPPED_SHOWN:
        return skipped
    return [*skipped[:SKIPPED_SHOWN], f"… and {len(skipped) - SKIPPED_SHOWN} more"]
