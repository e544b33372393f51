"""Scratch folder of one worker, locked so that other workers know whether it is still in use.

The lock is an `flock` on a file in the folder (see infra.folders). The worker and the guards of its programs hold the
file open, so the lock is free as soon as no process writes into the folder any more, however the processes ended.
Other workers then remove the folder. A folder without a lock file, or whose lock file names no process, is never
removed: either its worker is just creating it, or it belongs to another program or to a worker of an earlier release.

The lock file holds names of worker processes, one in each line: first the name of the process that holds the lock, then
the dead processes whose runs it has yet to recover. Whoever gets the lock knows that all of these processes have ended,
because the lock was free, and passes their names to its claims (`infra.contract.queue`). A worker writes its own name
before its first claim, and removes an abandoned folder only after it has written the names from there into its own
file: if it dies in between, the next worker finds the names again.
"""

import errno
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.contract.errors import ExecutorUnavailable
from infra.contract.queue import MAX_DEAD_PROCESSES
from infra.folders import empty_folder, try_lock
from infra.logging import log

LOCK = ".lock"
"""Name of the lock file. The dot keeps it apart from run ids."""
LOCK_TIMEOUT_S = 30.0
"""Time for the programs of a killed worker to die, or for a worker of the same name to finish its drain."""
_PAUSE_S = 0.02
_PROCESS = re.compile(r"[0-9a-f]{16}")
_MAX_FILE_BYTES = 4096


class ScratchRoot:
    """Scratch folder of this worker, created if missing and emptied. Abandoned folders beside it are removed.

    Every process that uses the folder must keep `lock_fd` open, and no other process may inherit it. `process` is the
    name of this process, `dead_processes` are the names of ended ones.
    Raises ExecutorUnavailable if the folder cannot be used, or stays locked by another worker for LOCK_TIMEOUT_S.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = secrets.token_hex(8)
        self.dead_processes: tuple[str, ...] = ()
        with self._usable():
            _empty_abandoned(folder)
            self.lock_fd = _acquire_lock(folder)
            try:
                self._take_over()
            except OSError:
                os.close(self.lock_fd)
                raise

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ExecutorUnavailable(
                f"the scratch folder '{self.folder}' cannot be created or emptied: {exc.strerror}; "
                "set WORKER_ROOT to a folder that this worker may write to"
            ) from exc

    def restore(self) -> None:
        """Create the folder and its lock again if somebody has removed them, as cleaners of temporary files do.

        Raises ExecutorUnavailable if that fails, or if another worker has taken the folder over.
        """
        with self._usable():
            if self._is_own():
                return
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock_fd = try_lock(self.folder / LOCK, create=True)
            if lock_fd is None:
                raise _in_use(self.folder)
            # The descriptor keeps its number, which programs are started with.
            os.dup2(lock_fd, self.lock_fd, inheritable=False)
            os.close(lock_fd)
            _write_processes(self.lock_fd, [self.process, *self.dead_processes])
        log("scratch.restored", level=logging.WARNING, folder=str(self.folder))

    def forget_dead(self) -> None:
        """Remove the dead processes from the lock file: their runs are recovered."""
        self.dead_processes = ()
        _write_processes(self.lock_fd, [self.process])

    def _take_over(self) -> None:
        """Adopt the dead processes of this folder and of abandoned ones, and remove what they left."""
        self.folder.chmod(0o700)  # a folder that existed before may be open to other users
        empty_folder(self.folder, keep=LOCK)
        self._adopt(self.lock_fd)
        for folder in _scratch_folders(self.folder.parent, keep=self.folder.name):
            try:
                with _locked_if_abandoned(folder) as lock_fd:
                    if lock_fd is None:
                        continue
                    self._adopt(lock_fd)
                    _remove_locked(folder)
                log("scratch.removed", folder=str(folder))
            except OSError as exc:
                _log_remove_failed(folder, exc)

    def _adopt(self, lock_fd: int) -> None:
        """Add the processes of a lock file, which have ended, to the dead ones, and store them."""
        names = dict.fromkeys([*self.dead_processes, *_read_processes(lock_fd)])
        self.dead_processes = tuple(names)[:MAX_DEAD_PROCESSES]
        _write_processes(self.lock_fd, [self.process, *self.dead_processes])

    def remove(self) -> None:
        """Remove the folder and release the lock. No program may run in it any more. Logs a failure."""
        try:
            if self._is_own():
                _remove_locked(self.folder)
        except OSError as exc:
            _log_remove_failed(self.folder, exc)
        finally:
            os.close(self.lock_fd)

    def _is_own(self) -> bool:
        """Return whether the lock of the folder is that of this process: somebody may have removed it, or both."""
        with suppress(FileNotFoundError):
            return os.path.samestat((self.folder / LOCK).lstat(), os.fstat(self.lock_fd))
        return False


def _scratch_folders(parent: Path, keep: str) -> list[Path]:
    # A missing or unreadable parent is reported when this worker creates its own folder there.
    with suppress(OSError):
        return [folder for folder in parent.iterdir() if folder.name != keep]
    return []


@contextmanager
def _locked_if_abandoned(folder: Path) -> Iterator[int | None]:
    """Hold the lock of a worker's folder that no process uses; None for any other folder."""
    lock_fd = None
    with suppress(FileNotFoundError, NotADirectoryError):
        if folder.lstat().st_uid == os.geteuid() and not folder.is_symlink():
            lock_fd = try_lock(folder / LOCK, create=False)
    try:
        # WORKER_ROOT may hold folders of other programs, and some of them have a file of this name, too.
        yield lock_fd if lock_fd is not None and _read_processes(lock_fd) else None
    finally:
        if lock_fd is not None:
            os.close(lock_fd)


def _empty_abandoned(own: Path) -> None:
    """Remove the content of abandoned folders, which may fill the disk, so that this worker can write its name."""
    for folder in _scratch_folders(own.parent, keep=own.name):
        # A failure is logged when the folder is to be removed.
        with suppress(OSError), _locked_if_abandoned(folder) as lock_fd:
            if lock_fd is not None:
                empty_folder(folder, keep=LOCK)


def _read_processes(lock_fd: int) -> list[str]:
    """Return the process names in a lock file; a line of any other form, as of a torn write, is ignored."""
    text = os.pread(lock_fd, _MAX_FILE_BYTES, 0).decode("ascii", "replace")
    return [line for line in text.splitlines() if _PROCESS.fullmatch(line)]


def _write_processes(lock_fd: int, names: Sequence[str]) -> None:
    # In place, because the lock belongs to this file: a new file in its place would be unlocked. If the process is
    # killed between the two calls, names of dead processes stay behind, which does no harm.
    written = os.pwrite(lock_fd, "".join(f"{name}\n" for name in names).encode(), 0)
    os.ftruncate(lock_fd, written)


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
            raise _in_use(folder)
        time.sleep(_PAUSE_S)


def _in_use(folder: Path) -> ExecutorUnavailable:
    return ExecutorUnavailable(
        f"the scratch folder '{folder}' is in use by another worker; "
        "give each worker on this host its own WORKER_NAME or WORKER_ROOT"
    )


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
