"""A worker's own folder beside those of others: locked, so that it can be told whose worker is gone.

The lock is on a file in the folder, by `flock`: it ends with the last process that has the file open, however that
ended. These are the worker and the guards of its programs, so it is free when nobody writes in the folder any more. A
folder without that file is left alone: it is just being made, or that of a worker of a release which had no locks.
"""

import errno
import fcntl
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from infra.contract.errors import ExecutorUnavailable
from infra.local_executor.run_dirs import empty
from infra.logging import log

LOCK = ".lock"
"""No run has such a name."""
PATIENCE_S = 30.0
"""The programs of a worker that was killed need a moment to die, one of the same name that is drained its grace."""
_PAUSE_S = 0.02
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Home:
    """The folder of this worker, empty at first. `lock_fd` is to be open in all who use the folder, and in nobody else.

    Raises OSError, and ExecutorUnavailable if another worker lives there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock_fd = _moved_in(folder)
        try:
            empty(folder, but=LOCK)
        except OSError:
            os.close(self.lock_fd)
            raise

    def leave(self) -> None:
        """Remove the folder, in which no program may run any more. What cannot be removed is logged."""
        try:
            _remove(self.folder)
        except OSError as exc:
            _log_left(self.folder, exc)
        finally:
            os.close(self.lock_fd)


def remove_abandoned(root: Path, but: str) -> None:
    """Remove the folders below `root`, all but one, whose workers are gone. What cannot be removed is logged."""
    with suppress(OSError):  # whether anybody can work there is seen when a folder is made
        for folder in [folder for folder in root.iterdir() if folder.name != but]:
            try:
                _remove_if_abandoned(folder)
            except OSError as exc:
                _log_left(folder, exc)


def _remove_if_abandoned(folder: Path) -> None:
    try:
        own = folder.lstat().st_uid == os.geteuid() and not folder.is_symlink()
        lock_fd = _locked(folder) if own else None
    except (FileNotFoundError, NotADirectoryError):
        return
    if lock_fd is None:
        return
    try:
        _remove(folder)
    finally:
        os.close(lock_fd)
    log("scratch.removed", folder=str(folder))


def _moved_in(folder: Path) -> int:
    """The lock of the folder, which is made if it is not there."""
    until = time.monotonic() + PATIENCE_S
    while True:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        if folder.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "it is a link", str(folder))
        with suppress(FileNotFoundError):  # what another worker of this name had left was removed just now
            if (lock_fd := _locked(folder, os.O_CREAT)) is not None:
                return lock_fd
        if time.monotonic() >= until:
            raise ExecutorUnavailable(
                f"another worker lives in the scratch folder '{folder}'; the names of live workers must differ"
            )
        time.sleep(_PAUSE_S)


def _locked(folder: Path, flags: int = 0) -> int | None:
    """The lock, held; None if somebody else holds it, or has removed it before it was held. Raises OSError."""
    path = folder / LOCK
    lock_fd = os.open(path, _OPEN | flags, 0o600)
    held = False
    try:
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(lock_fd), path.lstat())
    finally:
        if not held:
            os.close(lock_fd)
    return lock_fd if held else None


def _remove(folder: Path) -> None:
    """Remove a folder whose lock is held; the lock goes last, so that what cannot be removed now can be later."""
    empty(folder, but=LOCK)
    (folder / LOCK).unlink()
    with suppress(OSError):  # a worker of the same name has just moved in
        folder.rmdir()


def _log_left(folder: Path, exc: OSError) -> None:
    log("scratch.left", level=logging.WARNING, folder=str(folder), reason=str(exc))
