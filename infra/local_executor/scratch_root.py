"""Scratch folder of one worker, locked so that other workers know whether it is still in use.

The lock is an `flock` on a file in the folder (see infra.folders). The worker and the guards of its programs hold the
file open, so the lock is free as soon as no process writes into the folder any more, however the processes ended.
Other workers then remove the folder. A folder without a lock file is never removed: either its worker is just creating
it, or it belongs to a worker of a release without locks.
"""

import errno
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from infra.contract.errors import ExecutorUnavailable
from infra.folders import empty_folder, try_lock
from infra.logging import log

LOCK = ".lock"
"""Name of the lock file. The dot keeps it apart from run ids."""
LOCK_TIMEOUT_S = 30.0
"""Time for the programs of a killed worker to die, or for a worker of the same name to finish its drain."""
_PAUSE_S = 0.02


class ScratchRoot:
    """Scratch folder of this worker, created if missing and emptied.

    Every process that uses the folder must keep `lock_fd` open, and no other process may inherit it.
    Raises OSError, and ExecutorUnavailable if another worker keeps the folder locked for LOCK_TIMEOUT_S.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock_fd = _acquire_lock(folder)
        try:
            folder.chmod(0o700)  # a folder that existed before may be open to other users
            empty_folder(folder, keep=LOCK)
        except OSError:
            os.close(self.lock_fd)
            raise

    def remove(self) -> None:
        """Remove the folder and release the lock. No program may run in it any more. Logs a failure."""
        try:
            _remove_locked(self.folder)
        except OSError as exc:
            _log_remove_failed(self.folder, exc)
        finally:
            os.close(self.lock_fd)


def remove_abandoned(parent: Path, keep: str) -> None:
    """Remove the scratch folders in `parent` whose workers have ended, except `keep`. Logs failures."""
    # A missing or unreadable parent is reported when this worker creates its own folder there.
    with suppress(OSError):
        for folder in [folder for folder in parent.iterdir() if folder.name != keep]:
            try:
                _remove_if_abandoned(folder)
            except OSError as exc:
                _log_remove_failed(folder, exc)


def _remove_if_abandoned(folder: Path) -> None:
    try:
        is_own = folder.lstat().st_uid == os.geteuid() and not folder.is_symlink()
        lock_fd = try_lock(folder / LOCK, create=False) if is_own else None
    except (FileNotFoundError, NotADirectoryError):
        return
    if lock_fd is None:
        return
    try:
        _remove_locked(folder)
    finally:
        os.close(lock_fd)
    log("scratch.removed", folder=str(folder))


def _acquire_lock(folder: Path) -> int:
    """Create the folder if missing, wait for its lock, and return the descriptor."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        if folder.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "it is a link", str(folder))
        # Between `mkdir` and `open` another worker may remove the folder as abandoned: create it again.
        with suppress(FileNotFoundError):
            if (lock_fd := try_lock(folder / LOCK, create=True)) is not None:
                return lock_fd
        if time.monotonic() >= deadline:
            raise ExecutorUnavailable(
                f"the scratch folder '{folder}' is in use by another worker; "
                "give each worker on this host its own WORKER_NAME or WORKER_ROOT"
            )
        time.sleep(_PAUSE_S)


def _remove_locked(folder: Path) -> None:
    """Remove a folder whose lock this process holds."""
    empty_folder(folder, keep=LOCK)
    # The lock file goes last: after a failure above, the next worker still finds it and removes the rest.
    (folder / LOCK).unlink()
    # Once the lock file is removed, a new worker of the same name may have created its own.
    with suppress(OSError):
        folder.rmdir()


def _log_remove_failed(folder: Path, exc: OSError) -> None:
    log("scratch.remove_failed", level=logging.WARNING, folder=str(folder), reason=str(exc))
