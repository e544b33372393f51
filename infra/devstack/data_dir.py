"""Data folder of a stack: its paths, and the lock that allows one stack at a time to use it."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from infra.devstack.errors import StackError
from infra.folders import try_lock

FREE_BYTES = 256 * 1024 * 1024
FREE_SHARE = 0.01
"""The S3 server stops accepting writes when less than this share of the disk is free."""

LOCK_TIMEOUT_S = 10.0
_LOCK_PAUSE_S = 0.05


@dataclass(frozen=True)
class DataDir:
    """Paths inside the data folder."""

    root: Path

    @property
    def lock(self) -> Path:
        """Lock file, held while a process of the stack lives. Contains the process id of the parent."""
        return self.root / "lock"

    @property
    def credentials(self) -> Path:
        """Passwords, tokens and keys."""
        return self.root / "credentials.json"

    @property
    def ports(self) -> Path:
        """Ports of the last start."""
        return self.root / "ports.json"

    @property
    def dev_env(self) -> Path:
        """Environment variables with the addresses and credentials of all services."""
        return self.root / "dev.env"

    @property
    def logs(self) -> Path:
        """Folder with one log for each process, and its log of the previous start."""
        return self.root / "logs"

    @property
    def redis(self) -> Path:
        """Data and configuration of Valkey."""
        return self.root / "redis"

    @property
    def redis_config(self) -> Path:
        """Configuration of Valkey. Contains the password, which a command line would show to other users."""
        return self.redis / "valkey.conf"

    @property
    def s3(self) -> Path:
        """Data of the S3 server."""
        return self.root / "s3"

    @property
    def s3_config(self) -> Path:
        """Configuration of the S3 server: its only identity."""
        return self.root / "s3.json"

    @property
    def work(self) -> Path:
        """Scratch folders of the workers. Removed at each start and stop of the stack."""
        return self.root / "work"

    def create(self) -> None:
        """Create the missing folders, closed to other users.

        Raises OSError, and StackError if the disk is full or the folder holds what is not of a stack.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._claim()
        for folder in (self.logs, self.redis, self.s3):
            folder.mkdir(mode=0o700, exist_ok=True)
        disk = shutil.disk_usage(self.root)
        needed = max(FREE_BYTES, int(disk.total * FREE_SHARE))
        if disk.free < needed:
            raise StackError(
                f"the disk of {self.root} is full: {disk.free >> 20} MB are free, {needed >> 20} MB are needed"
            )

    def _claim(self) -> None:
        """Mark the folder as that of a stack, by its lock file. Raises StackError if it may be somebody else's."""
        # The stack removes scratch folders and old logs, such as the `work` in the folder of a project.
        if not (self.lock.exists() or self.redis_config.exists()):
            for folder in (self.work, self.logs):
                if folder.exists():
                    raise StackError(f"{self.root} holds '{folder.name}', which is not of a stack; use another folder")
        self.lock.touch(mode=0o600)


def write_private(path: Path, text: str) -> None:
    """Replace the file atomically; only its owner can read it. Raises OSError."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        # The mode is set at creation: a chmod after the write would leave the secret readable for a moment.
        temporary.touch(mode=0o600, exist_ok=False)
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


class DataDirLock:
    """Lock that keeps a second stack out of the data folder (see infra.folders).

    Child processes inherit `descriptor` and with it the lock. So after a `kill -9` of the parent the folder stays
    locked until its last child has ended and can no longer write.
    """

    def __init__(self, data_dir: DataDir) -> None:
        """Take the lock. Raises StackError if another stack holds it, OSError."""
        self.descriptor = _acquire(data_dir)
        try:
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, str(os.getpid()).encode(), 0)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Close the descriptor. The child processes must have ended."""
        os.close(self.descriptor)


def _acquire(data_dir: DataDir) -> int:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        descriptor = try_lock(data_dir.lock, create=True)
        if descriptor is not None:
            return descriptor
        holder = data_dir.lock.read_bytes()[:20].decode(errors="replace")
        # A living holder keeps the lock for as long as its stack runs: do not wait for it.
        if _is_alive(holder):
            raise StackError(f"{data_dir.root} is in use by another stack (process {holder})")
        if time.monotonic() > deadline:
            raise StackError(f"{data_dir.root} is in use by processes of a killed stack that did not end in time")
        time.sleep(_LOCK_PAUSE_S)


def _is_alive(process_id: str) -> bool:
    try:
        os.kill(int(process_id), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
