"""A run's scratch space on this host, and its removal whatever programs left there."""

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SAFE = re.compile(r"[A-Za-z0-9_-]{1,128}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def checked(text: str, what: str) -> str:
    """The text if it can be the name of a file. Raises ValueError."""
    if not _SAFE.fullmatch(text):
        raise ValueError(f"not a {what}: {text!r}")
    return text


@dataclass(frozen=True)
class Folders:
    """The folders of a run."""

    run: Path

    @property
    def workspace(self) -> Path:
        """What the program sees as its working directory."""
        return self.run / "workspace"

    @property
    def output(self) -> Path:
        """Where its output is kept."""
        return self.run / "output"

    def make(self) -> None:
        """Create the folders, closed to other users."""
        for folder in (self.run, self.workspace, self.output):
            folder.mkdir(mode=0o700, exist_ok=True)


def give(folder: Path, uid: int) -> None:
    """Make the sandbox's uid the owner of all below the folder; links are not followed."""
    os.chown(folder, uid, uid)
    for parent, folders, names in os.walk(folder):
        for entry in (*folders, *names):
            os.chown(Path(parent, entry), uid, uid, follow_symlinks=False)


def remove(folder: Path) -> None:
    """Remove a folder, which need not be there; no program may run in it.

    Folders inside are moved to the top first: depth costs neither stack nor descriptors nor long paths. What its owner
    locked is unlocked.
    """
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        empty(folder)
        folder.rmdir()


def empty(folder: Path, but: str = "") -> None:
    """Remove all in a folder but the file `but`."""
    top = _unlocked(str(folder), None)
    try:
        _empty(top, but)
    finally:
        os.close(top)


def _empty(top: int, but: str) -> None:
    scrap = f".scrap-{secrets.token_hex(8)}"
    left = _unlink_files(top, but)
    moved = 0
    while left:
        name = left.pop()
        fd = _unlocked(name, top)
        try:
            for inside in _unlink_files(fd):
                os.close(_unlocked(inside, fd))  # a folder that may not be written cannot be moved
                moved += 1
                os.rename(inside, f"{scrap}-{moved}", src_dir_fd=fd, dst_dir_fd=top)
                left.append(f"{scrap}-{moved}")
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=top)


def _unlink_files(fd: int, but: str = "") -> list[str]:
    """Remove all but the folders in a folder, and the file `but`; answer the folders' names."""
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder and name != but:
            os.unlink(name, dir_fd=fd)
    return [name for name, is_folder in found if is_folder]


def _unlocked(name: str, parent: int | None) -> int:
    """A descriptor of a folder that its owner may have locked."""
    os.chmod(name, 0o700, dir_fd=parent)  # not through a link: it is a folder, and no program is there to swap it
    return os.open(name, _FOLDER, dir_fd=parent)
