"""Changes of a machine: each is one printed step, and with `dry_run` nothing but that."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LAST_LINES = 20


class VmError(Exception):
    """A command cannot be carried out. The message is one line for users: the problem and, if possible, its remedy."""


class UsageError(VmError):
    """Wrong options or settings: nothing was changed."""


class Machine:
    """Steps on this machine. Methods raise VmError and OSError. Texts of files and environments are never printed."""

    def __init__(self, *, dry_run: bool = False) -> None:
        self.dry_run = dry_run

    def say(self, line: str) -> None:
        """Print one line."""
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def run(self, words: Sequence[str | Path], *, env: Mapping[str, str] | None = None, show: bool = False) -> None:
        """Run a program. `env`: its whole environment. `show`: pass its output on; else it is shown if it fails."""
        command = [str(word) for word in words]
        self.say(f"+ {' '.join(command)}")
        if self.dry_run:
            return
        try:
            ended = subprocess.run(
                command, env=env, stdin=subprocess.DEVNULL, capture_output=not show, text=True, check=False
            )
        except OSError as error:
            raise VmError(f"{command[0]} cannot be started: {error.strerror}") from error
        if ended.returncode:
            lines = [] if show else f"{ended.stdout}{ended.stderr}".strip().splitlines()[-LAST_LINES:]
            for line in lines:
                self.say(f"  {line}")
            raise VmError(f"{' '.join(command[:3])} failed with exit code {ended.returncode}")

    def folder(self, path: Path, mode: int = 0o755) -> None:
        """Make a folder, with those above it."""
        if path.is_dir():
            return
        self.say(f"+ make the folder {path}")
        if not self.dry_run:
            path.mkdir(mode=mode, parents=True)
            path.chmod(mode)

    def write(self, path: Path, text: str, mode: int = 0o644) -> None:
        """Replace a file atomically, unless it has this text and mode already."""
        if path.is_file() and path.read_text() == text and path.stat().st_mode & 0o777 == mode:
            return
        self.say(f"+ write {path}")
        if self.dry_run:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        # The mode is set at creation: after a later chmod the secret would have been readable for a moment.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)

    def link(self, path: Path, target: Path) -> None:
        """Make a link, or let it lead elsewhere, atomically."""
        if path.is_symlink() and path.readlink() == target:
            return
        self.say(f"+ link {path} -> {target}")
        if self.dry_run:
            return
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(path)

    def copy(self, source: Path, target: Path) -> None:
        """Copy a file, or a folder without compiled files. Everybody can read the copy, whoever can read the source."""
        self.say(f"+ copy {source} to {target}")
        if self.dry_run:
            return
        for path in (source, *sorted(source.rglob("*"))):
            if "__pycache__" in path.parts:
                continue
            copy = target / path.relative_to(source)
            if path.is_dir():
                copy.mkdir(parents=True, exist_ok=True)
            else:
                shutil.copyfile(path, copy)

    def remove(self, path: Path) -> None:
        """Remove a file, a link or a whole folder, if it exists."""
        if not path.exists() and not path.is_symlink():
            return
        self.say(f"+ remove {path}")
        if self.dry_run:
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def own(self, path: Path, owner: Path) -> None:
        """Give a folder with its content to the owner of another folder."""
        self.say(f"+ give {path} to the owner of {owner}")
        if self.dry_run:
            return
        status = owner.stat()
        for each in (path, *path.rglob("*")):
            os.chown(each, status.st_uid, status.st_gid, follow_symlinks=False)
