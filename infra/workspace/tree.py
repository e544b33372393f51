"""A directory that hostile programs have filled: read, written and pruned without ever following a link.

Every folder is opened from the top, name by name, with O_NOFOLLOW, so whatever a program put in place of a folder is
refused, and at most three descriptors are open at a time however deep it dug. This needs no program to run in the
directory meanwhile, since names are looked up again between two steps; the sandbox is dead by then.
The directory itself and what is above it belong to the worker.
"""

import hashlib
import os
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from infra.contract.errors import InvalidInput, LimitExceeded
from infra.contract.paths import workspace_path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER_ALL = 0o700


class Stamp(NamedTuple):
    """What tells that a file changed, as far as it can be told without reading. A program cannot set `ctime_ns`."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    executable: bool


class Scan(NamedTuple):
    """What a directory holds: regular files by path, and all else that is not a folder, in printable form."""

    files: dict[str, Stamp]
    skipped: list[str]


class Tree:
    """The directory, created if missing. A context manager."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._fd = _open_folder(str(root), None)
        self._scrap = f".scrap-{secrets.token_hex(8)}"
        self._scraps = 0

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._fd)

    def scan(self, ignored: str, max_entries: int) -> Scan:
        """All but the top folder `ignored`. Raises LimitExceeded if there are more entries than can be looked at."""
        files: dict[str, Stamp] = {}
        skipped: list[str] = []
        left = max_entries
        folders = [""]
        while folders:
            above = folders.pop()
            with self._folder(above) as fd, os.scandir(fd) as entries:
                for entry in entries:
                    path = f"{above}/{entry.name}" if above else entry.name
                    if path == ignored:
                        continue
                    left -= 1
                    if left < 0:
                        raise LimitExceeded(f"the workspace has more than {max_entries} entries, which is the limit")
                    found = entry.stat(follow_symlinks=False)
                    if not _allowed(path) or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                        skipped.append(_printable(path))
                    elif stat.S_ISREG(found.st_mode):
                        files[path] = _stamp(found)
                    else:
                        folders.append(path)
        return Scan(files, sorted(skipped))

    def prune(self, wanted: Collection[str]) -> dict[str, Stamp]:
        """Remove all but the wanted files and the folders they are in; returns those that are there."""
        folders_of_wanted = {folder for path in wanted for folder in parents(path)}
        kept: dict[str, Stamp] = {}
        folders = [""]
        while folders:
            above = folders.pop()
            with self._folder(above) as fd:
                for name, mode in _entries(fd):
                    path = f"{above}/{name}" if above else name
                    if stat.S_ISDIR(mode) and path in folders_of_wanted:
                        folders.append(path)
                    elif stat.S_ISREG(mode) and path in wanted:
                        kept[path] = _stamp(os.stat(name, dir_fd=fd, follow_symlinks=False))
                    elif stat.S_ISDIR(mode):
                        self._discard(name, fd)
                    else:
                        os.unlink(name, dir_fd=fd)
        return kept

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """A descriptor for reading a regular file, even if a program took its permissions away. Raises OSError."""
        above, name = _split(path)
        with self._folder(above) as parent:
            try:
                fd = os.open(name, _READ, dir_fd=parent)
            except PermissionError:
                _unlock(name, parent)
                fd = os.open(name, _READ, dir_fd=parent)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(f"'{path}' is not a regular file")
            yield fd
        finally:
            os.close(fd)

    def digest(self, path: str) -> tuple[Stamp, bytes]:
        """A regular file's stamp and the digest of its bytes. Raises OSError if it cannot be read."""
        with self.opened(path) as fd, os.fdopen(fd, "rb", closefd=False) as file:
            content = hashlib.file_digest(file, "sha256").digest()
            return _stamp(os.fstat(fd)), content

    def write(self, path: str, chunks: Iterable[bytes], *, executable: bool) -> tuple[Stamp, bytes]:
        """Put a file in place as a whole; nothing of it is to be seen if the chunks end in an error."""
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
                    os.fchmod(fd, 0o755 if executable else 0o644)
                os.replace(part, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=parent)
                raise
            return _stamp(os.stat(name, dir_fd=parent, follow_symlinks=False)), digest.digest()

    @contextmanager
    def _folder(self, path: str, *, create: bool = False) -> Iterator[int]:
        fd = os.dup(self._fd)
        try:
            for name in path.split("/") if path else ():
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=fd)
                below = _open_folder(name, fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _discard(self, name: str, parent: int) -> None:
        """Remove a folder. Folders inside it are moved to the top first: depth costs neither stack nor descriptors."""
        scraps = [self._to_scrap(name, parent)]
        while scraps:
            scrap = scraps.pop()
            fd = _open_folder(scrap, self._fd)
            try:
                for inside, mode in _entries(fd):
                    if stat.S_ISDIR(mode):
                        scraps.append(self._to_scrap(inside, fd))
                    else:
                        os.unlink(inside, dir_fd=fd)
            finally:
                os.close(fd)
            os.rmdir(scrap, dir_fd=self._fd)

    def _to_scrap(self, name: str, parent: int) -> str:
        os.close(_open_folder(name, parent))  # unlocks it: a folder that may not be written cannot be moved
        self._scraps += 1
        scrap = f"{self._scrap}-{self._scraps}"
        os.rename(name, scrap, src_dir_fd=parent, dst_dir_fd=self._fd)
        return scrap


def _open_folder(name: str, parent: int | None) -> int:
    try:
        fd = os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        _unlock(name, parent)
        return os.open(name, _FOLDER, dir_fd=parent)
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & _OWNER_ALL != _OWNER_ALL:
        with suppress(PermissionError):
            os.fchmod(fd, mode | _OWNER_ALL)
    return fd


def _unlock(name: str, parent: int | None) -> None:
    """Give the owner all permissions for a regular file or folder, never through a link."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            wanted = _OWNER_ALL if stat.S_ISDIR(mode) else 0o600
            # The descriptor's path names this very file; fchmod refuses a descriptor that was opened without reading.
            Path(f"/proc/self/fd/{fd}").chmod(stat.S_IMODE(mode) | wanted)
    finally:
        os.close(fd)


def _entries(fd: int) -> list[tuple[str, int]]:
    """Names and modes in a folder, read as a whole since the caller changes it."""
    with os.scandir(fd) as entries:
        return [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries]


def _stamp(found: os.stat_result) -> Stamp:
    executable = bool(found.st_mode & stat.S_IXUSR)
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, executable)


def _split(path: str) -> tuple[str, str]:
    above, _, name = path.rpartition("/")
    return above, name


def parents(path: str) -> Iterator[str]:
    """The folders that a path is in, innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _allowed(path: str) -> bool:
    try:
        workspace_path(path)
    except InvalidInput:
        return False
    return True


def _printable(path: str) -> str:
    """A name for a log: no control characters, nothing that is not UTF-8, not endless."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= 200 else f"{shown[:200]}…"
