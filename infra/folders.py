"""Folders that processes share or that untrusted programs have filled: locking one, and removing its content.

A lock is an `flock` on a file in the folder. It belongs to the open file, not to the process that took it: children
that inherit the descriptor hold it too, and the kernel releases it when the last of them has ended, even by SIGKILL.

Removal opens every folder relative to the descriptor of its parent with O_NOFOLLOW, so a link is unlinked and never
followed. Folders that their owner locked (mode 0) are unlocked. Inner folders are moved to the top and removed from
there, so depth costs neither stack, nor descriptors, nor path length. No program may run in the folder meanwhile,
because names are looked up again between two steps.
"""

import fcntl
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

_OPEN_LOCK = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER_ALL = 0o700


def try_lock(path: Path, *, create: bool) -> int | None:
    """Lock the file and return its descriptor; None if another process holds the lock or removed the file meanwhile.

    Does not wait. Raises OSError, which is FileNotFoundError if the file is missing and not to be created.
    """
    fd = os.open(path, _OPEN_LOCK | (os.O_CREAT if create else 0), 0o600)
    locked = False
    try:
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file between `open` and `flock`. A lock on a file without a
            # name keeps nobody out, because the next process creates a new file.
            locked = os.path.samestat(os.fstat(fd), path.lstat())
    finally:
        if not locked:
            os.close(fd)
    return fd if locked else None


def remove_tree(path: Path) -> None:
    """Remove a folder with all its content, or a file or link; the path may be missing. Raises OSError."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        empty_folder(path)
        path.rmdir()


def empty_folder(path: Path, keep: str = "") -> None:
    """Remove everything in a folder except the file `keep`. Raises OSError."""
    fd = open_folder(str(path), None)
    try:
        _remove_folders(_unlink_files(fd, keep), fd)
    finally:
        os.close(fd)


def remove_folder(name: str, parent_fd: int, top_fd: int) -> None:
    """Remove the folder `name` in `parent_fd`, which is `top_fd` or any folder below it. Raises OSError."""
    scrap = f".scrap-{secrets.token_hex(8)}"
    _move_folder(name, parent_fd, scrap, top_fd)
    _remove_folders([scrap], top_fd)


def open_folder(name: str, parent_fd: int | None) -> int:
    """Open a folder, give its owner all permissions, and return the descriptor. Raises OSError, for a link too."""
    try:
        fd = os.open(name, _OPEN_FOLDER, dir_fd=parent_fd)
    except PermissionError:
        unlock(name, parent_fd)
        return os.open(name, _OPEN_FOLDER, dir_fd=parent_fd)
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & _OWNER_ALL != _OWNER_ALL:
        # A folder of another user can be read, though its mode cannot be changed.
        with suppress(PermissionError):
            os.fchmod(fd, mode | _OWNER_ALL)
    return fd


def unlock(name: str, parent_fd: int | None) -> None:
    """Give the owner all permissions on a regular file or folder, never through a link. Raises OSError."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            wanted = _OWNER_ALL if stat.S_ISDIR(mode) else 0o600
            # The path of the descriptor names exactly this file. fchmod fails on a descriptor opened with O_PATH.
            Path(f"/proc/self/fd/{fd}").chmod(stat.S_IMODE(mode) | wanted)
    finally:
        os.close(fd)


def list_entries(fd: int) -> list[tuple[str, int]]:
    """Return names and modes of a folder's entries. A list, because callers change the folder while they iterate."""
    with os.scandir(fd) as entries:
        return [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries]


def _remove_folders(names: list[str], top_fd: int) -> None:
    """Remove folders that lie directly in `top_fd`. Empties the list."""
    scrap, moved = f".scrap-{secrets.token_hex(8)}", 0
    while names:
        name = names.pop()
        fd = open_folder(name, top_fd)
        try:
            for inner in _unlink_files(fd):
                moved += 1
                _move_folder(inner, fd, f"{scrap}-{moved}", top_fd)
                names.append(f"{scrap}-{moved}")
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=top_fd)


def _unlink_files(fd: int, keep: str = "") -> list[str]:
    """Remove all entries of a folder except folders and the file `keep`; return the names of the folders."""
    folders = []
    for name, mode in list_entries(fd):
        if stat.S_ISDIR(mode):
            folders.append(name)
        elif name != keep:
            os.unlink(name, dir_fd=fd)
    return folders


def _move_folder(name: str, parent_fd: int, target: str, top_fd: int) -> None:
    # A folder can be moved only by a user who may write into it, since its entry `..` changes. Opening unlocks it.
    os.close(open_folder(name, parent_fd))
    os.rename(name, target, src_dir_fd=parent_fd, dst_dir_fd=top_fd)
