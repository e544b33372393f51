"""Directory that hostile programs have filled: read, written and pruned without following a link.

Every folder is opened from the top, name by name, with O_NOFOLLOW. So a link in place of a folder is refused, and at
most three descriptors are open at a time at any depth. No program may run in the directory meanwhile, because names are
looked up again between two steps: the sandbox is dead by then. The directory itself and its parents belong to the
worker.
"""

import hashlib
import os
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from infra.contract.errors import InvalidInput, LimitExceeded
from infra.contract.paths import parents, workspace_path
from infra.folders import list_entries, open_folder, remove_folder, unlock

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


PERMISSIONS = 0o777
"""Bits of a mode that are kept; the set-uid, set-gid and sticky bits are not."""
FOLDER_MODE = 0o755
"""Mode of a folder of which nothing else is known."""
MAX_SKIPPED = 100
"""Skipped names that are listed."""
STAMP_GRAIN_NS = 50_000_000
"""Upper bound for a tick of the kernel's clock for file times. A file may change twice within one tick and keep its
times, so a stamp that was younger than this when it was noted does not prove that the file is unchanged."""
_MAX_NS = 2**63 - 1


class Stamp(NamedTuple):
    """Attributes of a file that reveal most changes without reading it. A program cannot set `ctime_ns`."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    mode: int

    def proves_equal(self, noted: "Stamp", noted_ns: int) -> bool:
        """Return True if the file must be unchanged since `noted_ns`, when it had the stamp `noted`."""
        return self == noted and self.ctime_ns + STAMP_GRAIN_NS < noted_ns


class Scan(NamedTuple):
    """Content of a directory: regular files by path, the modes of folders by path, and the printable names of all else.

    The modes are those that programs left, read before the folders were unlocked.
    """

    files: dict[str, Stamp]
    folders: dict[str, int]
    skipped: list[str]

    def special_folders(self, limit: int) -> tuple[dict[str, int], int]:
        """Return the modes of folders that are empty or not FOLDER_MODE, `limit` at most, and the number of the others.

        All further folders are implied by what is in them.
        """
        implied = {parent for path in (*self.files, *self.folders) for parent in parents(path)}
        special = sorted(path for path, mode in self.folders.items() if path not in implied or mode != FOLDER_MODE)
        return {path: self.folders[path] for path in special[:limit]}, max(0, len(special) - limit)


def shortened(skipped: Collection[str]) -> list[str]:
    """Return the first MAX_SKIPPED names in their order, and how many more there are."""
    more = len(skipped) - MAX_SKIPPED
    return sorted(skipped)[:MAX_SKIPPED] + ([f"… and {more} more"] if more > 0 else [])


class Tree:
    """Directory, created if missing. A context manager."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._fd = open_folder(str(root), None)

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._fd)

    def scan(self, ignored: str, max_entries: int) -> Scan:
        """List everything except the top folder `ignored`. Raises LimitExceeded for more than `max_entries` entries."""
        files: dict[str, Stamp] = {}
        modes: dict[str, int] = {}
        skipped: list[str] = []
        count = 0
        folders = [""]
        while folders:
            above = folders.pop()
            with self._folder(above) as fd, os.scandir(fd) as entries:
                for entry in entries:
                    path = f"{above}/{entry.name}" if above else entry.name
                    if path == ignored:
                        continue
                    count += 1
                    if count > max_entries:
                        raise LimitExceeded(f"the workspace has more than {max_entries} entries, which is the limit")
                    found = entry.stat(follow_symlinks=False)
                    if not _allowed(path) or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                        skipped.append(_printable(path))
                    elif stat.S_ISREG(found.st_mode):
                        files[path] = _stamp(found)
                    else:
                        modes[path] = found.st_mode & PERMISSIONS
                        folders.append(path)
        return Scan(files, modes, sorted(skipped))

    def prune(self, wanted: Collection[str], wanted_folders: Collection[str]) -> Scan:
        """Remove everything except the wanted files and folders; return the ones that exist.

        `wanted_folders` includes the folders above each file and each folder. Folders are unlocked, and have the modes
        returned, with the special bits that programs set. A file with such bits or with a second name is removed as
        well: a new copy has neither, here as on any other worker.
        """
        existing: dict[str, Stamp] = {}
        modes: dict[str, int] = {}
        folders = [""]
        while folders:
            above = folders.pop()
            with self._folder(above) as fd:
                for name, mode in list_entries(fd):
                    path = f"{above}/{name}" if above else name
                    if stat.S_ISDIR(mode) and path in wanted_folders:
                        modes[path] = stat.S_IMODE(mode | stat.S_IRWXU)
                        folders.append(path)
                    elif stat.S_ISREG(mode) and path in wanted and (stamp := _plain_stamp(name, fd)):
                        existing[path] = stamp
                    elif stat.S_ISDIR(mode):
                        remove_folder(name, fd, self._fd)
                    else:
                        os.unlink(name, dir_fd=fd)
        return Scan(existing, modes, [])

    @contextmanager
    def open(self, path: str) -> Iterator[int]:
        """Open a regular file for reading, even if a program removed its permissions. Raises OSError."""
        above, name = _split(path)
        with self._folder(above) as parent:
            try:
                fd = os.open(name, _READ, dir_fd=parent)
            except PermissionError:
                mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
                unlock(name, parent)
                fd = os.open(name, _READ, dir_fd=parent)
                # The mode belongs to the program's work, and is stored.
                os.fchmod(fd, mode & PERMISSIONS)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(f"'{path}' is not a regular file")
            yield fd
        finally:
            os.close(fd)

    def digest(self, path: str) -> tuple[Stamp, bytes]:
        """Return a regular file's stamp and the digest of its bytes. Raises OSError if it cannot be read."""
        with self.open(path) as fd, os.fdopen(fd, "rb", closefd=False) as file:
            content = hashlib.file_digest(file, "sha256").digest()
            return _stamp(os.fstat(fd)), content

    def write(self, path: str, chunks: Iterable[bytes], *, mode: int, mtime_ns: int) -> tuple[Stamp, bytes]:
        """Write a file atomically: after an error in `chunks` the path is unchanged. Return stamp and digest."""
        above, name = _split(path)
        digest = hashlib.sha256()
        with self._folder(above, create=True) as parent:
            part = f".part-{secrets.token_hex(8)}"
            fd = os.open(part, _CREATE, 0o600, dir_fd=parent)
            try:
                with os.fdopen(fd, "wb") as file:
                    for chunk in chunks:
                        digest.update(chunk)
                        file.write(chunk)
                    file.flush()  # a later write would change the modification time
                    os.fchmod(fd, mode & PERMISSIONS)
                    mtime_ns = max(-_MAX_NS, min(mtime_ns, _MAX_NS))
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                os.replace(part, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=parent)
                raise
            return _stamp(os.stat(name, dir_fd=parent, follow_symlinks=False)), digest.digest()

    def make_folder(self, path: str) -> None:
        """Create a folder, and those above it, if missing."""
        with self._folder(path, create=True):
            pass

    def set_folder_modes(self, modes: Mapping[str, int]) -> None:
        """Set the modes of folders, innermost first: a folder may then be locked, and what is in it out of reach."""
        for path in sorted(modes, key=lambda path: path.count("/"), reverse=True):
            with self._folder(path) as fd:
                os.fchmod(fd, modes[path] & PERMISSIONS)

    @contextmanager
    def _folder(self, path: str, *, create: bool = False) -> Iterator[int]:
        fd = os.dup(self._fd)
        try:
            for name in path.split("/") if path else ():
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=fd)
                below = open_folder(name, fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)


def _stamp(found: os.stat_result) -> Stamp:
    mtime_ns = max(-_MAX_NS, min(found.st_mtime_ns, _MAX_NS))
    return Stamp(found.st_size, mtime_ns, found.st_ctime_ns, found.st_ino, found.st_mode & PERMISSIONS)


def _plain_stamp(name: str, fd: int) -> Stamp | None:
    """Return the stamp of a file, None if it has special bits or a second name (a hard link)."""
    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    return _stamp(found) if found.st_nlink == 1 and not stat.S_IMODE(found.st_mode) & ~PERMISSIONS else None


def _split(path: str) -> tuple[str, str]:
    above, _, name = path.rpartition("/")
    return above, name


def _allowed(path: str) -> bool:
    try:
        workspace_path(path)
    except InvalidInput:
        return False
    return True


def _printable(path: str) -> str:
    """Return the path for a log: control characters and invalid UTF-8 escaped, at most 200 characters."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= 200 else f"{shown[:200]}…"
