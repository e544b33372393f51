"""Directories of one run on this host: its workspace and the output of its programs."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from infra.contract.errors import ExecutorUnavailable

_SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


def require_safe_name(text: str, what: str) -> str:
    """Return the text if it can be a file name. Raises ValueError."""
    if not _SAFE_NAME.fullmatch(text):
        raise ValueError(f"{text!r} cannot be a {what}: allowed are 1 to 128 ASCII letters, digits, '_' and '-'")
    return text


@dataclass(frozen=True)
class RunDirs:
    """Directories of a run; `root` holds them all."""

    root: Path

    @property
    def workspace(self) -> Path:
        """Working directory of the run's programs."""
        return self.root / "workspace"

    @property
    def output(self) -> Path:
        """Directory for stdout and stderr of the run's programs."""
        return self.root / "output"

    def require_usable(self) -> None:
        """Raise ExecutorUnavailable if somebody has removed the directories, or made their file system read-only."""
        if not (os.access(self.root, os.W_OK) and self.workspace.is_dir() and self.output.is_dir()):
            raise ExecutorUnavailable(
                f"the scratch folder '{self.root}' of this worker is gone, or cannot be written to; "
                "set WORKER_ROOT to a folder that nobody else cleans up"
            )

    def make(self) -> None:
        """Create the missing directories, closed to other users."""
        for folder in (self.root, self.workspace, self.output):
            folder.mkdir(mode=0o700, exist_ok=True)


def chown_tree(folder: Path, uid: int) -> None:
    """Make `uid` user and group of the folder and everything below it. Links themselves are changed, not followed."""
    _chown(folder, uid)
    for parent, folders, names in os.walk(folder):
        for entry in (*folders, *names):
            _chown(Path(parent, entry), uid)


def _chown(path: Path, uid: int) -> None:
    found = path.lstat()
    # Also a change to the same owner sets a new change time, after which the file has to be read to be compared.
    if (found.st_uid, found.st_gid) != (uid, uid):
        os.chown(path, uid, uid, follow_symlinks=False)
