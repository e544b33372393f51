"""The data folder: where things are in it, and the lock that keeps a second stack out."""

import fcntl
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.devstack.errors import StackError

FREE_BYTES = 256 * 1024 * 1024
FREE_SHARE = 0.01
"""The S3 server stops to write when less than this share of the disk is free."""

LOCK_WAIT_S = 10.0
_LOCK_PAUSE_S = 0.05


@dataclass(frozen=True)
class Layout:
    """The paths inside the data folder."""

    root: Path

    @property
    def lock(self) -> Path:
        """LeaseReply while a process of the stack lives; holds the process id of the parent."""
        return self.root / "lock"

    @property
    def credentials(self) -> Path:
        """Passwords, tokens and keys."""
        return self.root / "credentials.json"

    @property
    def ports(self) -> Path:
        """The ports of the last start."""
        return self.root / "ports.json"

    @property
    def dev_env(self) -> Path:
        """Variables for those who want to talk to the parts."""
        return self.root / "dev.env"

    @property
    def logs(self) -> Path:
        """One file for each part, and the one of the start before."""
        return self.root / "logs"

    @property
    def redis(self) -> Path:
        """Valkey's data and configuration."""
        return self.root / "redis"

    @property
    def redis_config(self) -> Path:
        """The configuration holds the password, so that the command line does not."""
        return self.redis / "valkey.conf"

    @property
    def s3(self) -> Path:
        """The S3 server's data."""
        return self.root / "s3"

    @property
    def s3_config(self) -> Path:
        """The S3 server's one identity."""
        return self.root / "s3.json"

    @property
    def work(self) -> Path:
        """The scratch folders of the workers; nothing in it outlives a stack."""
        return self.root / "work"

    def create(self) -> None:
        """Make the folders; those made are for their owner only. Raises OSError, StackError if space is short."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.logs, self.redis, self.s3):
            folder.mkdir(mode=0o700, exist_ok=True)
        disk = shutil.disk_usage(self.root)
        needed = max(FREE_BYTES, int(disk.total * FREE_SHARE))
        if disk.free < needed:
            raise StackError(
                f"the disk of {self.root} is full: {disk.free >> 20} MB are free, {needed >> 20} MB are needed"
            )


def write_private(path: Path, text: str) -> None:
    """Replace the file as a whole; only its owner may read it. Raises OSError."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    try:
        beside.touch(mode=0o600, exist_ok=False)
        beside.write_text(text)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


class FolderLock:
    """Keeps a second stack out of the folder.

    The children inherit the open file and with it the lock, so that it ends with the last of them: after a `kill -9`
    of the parent, nobody writes into the folder while an old child still does.
    """

    def __init__(self, layout: Layout) -> None:
        """Take the lock. Raises StackError if another stack has it, OSError."""
        self.descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take(layout)
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, str(os.getpid()).encode(), 0)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let go of it; the children must have ended."""
        os.close(self.descriptor)

    def _take(self, layout: Layout) -> None:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            with suppress(BlockingIOError):
                return fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holder = os.pread(self.descriptor, 20, 0).decode(errors="replace")
            if _is_alive(holder):
                raise StackError(f"{layout.root} is in use by another stack (process {holder})")
            if time.monotonic() > deadline:
                raise StackError(f"{layout.root} is still in use by what is left of a killed stack")
            time.sleep(_LOCK_PAUSE_S)


def _is_alive(process_id: str) -> bool:
    try:
        os.kill(int(process_id), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
