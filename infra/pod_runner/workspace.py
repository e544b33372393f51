"""Workspace of a pod: fetched before the program starts, compared after it has ended. All methods block.

It has the rules of `infra/workspace/directory_sync.py`: what counts as changed, what is skipped, which times and
permissions are kept.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from infra.contract.errors import InputChanged
from infra.contract.paths import RESERVED, is_reserved
from infra.pod_runner.private_files import chunks_of
from infra.pod_runner.task import PodTask, TaskFile
from infra.pod_runner.transfer import Transfers
from infra.workspace.tree import FOLDER_MODE, Stamp, Tree, shortened

PARALLEL = 8
"""Transfers at the same time."""
_BLOCK_BYTES = 512

Item = TypeVar("Item")


@dataclass
class PodChanges:
    """Changes of the workspace. `files` are the new and rewritten ones, with their SHA-256 (hex).

    `metadata` has mode and modification time of files whose content is the same; `folders` the modes of all folders
    that no file implies.
    """

    files: dict[str, tuple[Stamp, str]] = field(default_factory=dict)
    metadata: dict[str, tuple[int, int]] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    folders: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    unkept_folders: int = 0


class PodWorkspace:
    """Directory with the files of a task. No program may run in it during a call."""

    def __init__(self, root: Path, task: PodTask) -> None:
        self._root = root
        self._task = task
        self._known: dict[str, tuple[Stamp, bytes, int]] = {}

    def materialise(self, transfers: Transfers) -> None:
        """Empty the directory and fetch the files. Raises TransferFailed, InputChanged, OSError."""
        with Tree(self._root) as tree:
            tree.prune((), ())
            for path in sorted(self._task.folders):
                tree.make_folder(path)
            _each(lambda file: transfers.repeat(lambda: self._fetch(tree, transfers, file)), self._task.files)
            # At the end, because nothing can be made in a locked folder.
            tree.set_folder_modes({path: mode for path, mode in self._task.folders.items() if mode != FOLDER_MODE})

    def changes(self) -> PodChanges:
        """Compare the directory with what was fetched. Raises LimitExceeded, OSError."""
        found = PodChanges()
        with Tree(self._root) as tree:
            scan = tree.scan(RESERVED, self._task.limits.entries)
            self._task.limits.check({path: stamp.size_bytes for path, stamp in scan.files.items()})
            skipped = scan.skipped
            for path, stamp in scan.files.items():
                try:
                    self._compare(tree, path, stamp, found)
                except PermissionError:
                    skipped.append(path)
        found.deleted = sorted(path for path in self._known if path not in scan.files and not is_reserved(path))
        found.folders, found.unkept_folders = scan.special_folders(self._task.limits.folders)
        found.skipped = shortened(skipped)
        return found

    def store(self, changes: PodChanges, transfers: Transfers) -> dict[str, int | None]:
        """Store the changed files; return the slot of each, None for those in the tar file. Raises TransferFailed."""
        slots = self._task.slots
        # The largest files get a slot each, so that the worker has little to unpack.
        ordered = sorted(changes.files, key=lambda path: -changes.files[path][0].size_bytes)
        placed = dict(zip(ordered, range(len(slots.files)), strict=False))
        rest = [(path, changes.files[path][0].size_bytes) for path in ordered[len(slots.files) :]]
        with Tree(self._root) as tree:

            def put(path: str) -> None:
                size_bytes = changes.files[path][0].size_bytes
                what = f"the file '{path}'"
                transfers.store(what, slots.files[placed[path]], lambda: _content(tree, path, size_bytes), size_bytes)

            _each(put, list(placed))
            if rest:
                transfers.store("the further files", slots.rest, lambda: _tar(tree, rest), _tar_bytes(rest))
        return {path: placed.get(path) for path in ordered}

    def _fetch(self, tree: Tree, transfers: Transfers, file: TaskFile) -> None:
        with transfers.open(f"the file '{file.path}'", file.url) as chunks:
            content = _verified(file, chunks)
            stamp, digest = tree.write(file.path, content, mode=file.mode, mtime_ns=file.mtime_ns)
        self._known[file.path] = (stamp, digest, time.time_ns())

    def _compare(self, tree: Tree, path: str, stamp: Stamp, found: PodChanges) -> None:
        known = self._known.get(path)
        if known and stamp.proves_equal(known[0], known[2]):
            return
        stamp, digest = tree.digest(path)
        if known is None or known[1] != digest:
            found.files[path] = (stamp, digest.hex())
        elif (known[0].mode, known[0].mtime_ns) != (stamp.mode, stamp.mtime_ns):
            found.metadata[path] = (stamp.mode, stamp.mtime_ns)


def _verified(file: TaskFile, chunks: Iterable[bytes]) -> Iterator[bytes]:
    digest, size_bytes = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size_bytes += len(chunk)
        if size_bytes > file.size_bytes:
            break
        yield chunk
    if size_bytes != file.size_bytes or file.sha256 not in {None, digest.hexdigest()}:
        raise InputChanged(f"the file '{file.path}' was overwritten in the object store")


def _content(tree: Tree, path: str, size_bytes: int) -> Iterator[bytes]:
    with tree.open(path) as fd:
        yield from chunks_of(fd, size_bytes)


def _header(path: str, size_bytes: int) -> bytes:
    import tarfile  # seldom needed, and slow to import

    info = tarfile.TarInfo(path)
    info.size = size_bytes
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _tar(tree: Tree, files: Sequence[tuple[str, int]]) -> Iterator[bytes]:
    """Yield a tar file without writing it to the disk, whose limit the workspace may have used up."""
    for path, size_bytes in files:
        yield _header(path, size_bytes)
        yield from _content(tree, path, size_bytes)
        yield bytes(-size_bytes % _BLOCK_BYTES)
    yield bytes(2 * _BLOCK_BYTES)


def _tar_bytes(files: Sequence[tuple[str, int]]) -> int:
    sizes = (len(_header(path, size)) + size + -size % _BLOCK_BYTES for path, size in files)
    return sum(sizes) + 2 * _BLOCK_BYTES


def _each(function: Callable[[Item], Any], items: Sequence[Item]) -> None:
    """Call the function for each item, some at the same time. After an error no further item is started."""
    if len(items) < 2:
        for item in items:
            function(item)
        return
    with ThreadPoolExecutor(min(PARALLEL, len(items))) as pool:
        try:
            for done in [pool.submit(function, item) for item in items]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
