"""Places of backups: a folder, or the bucket of the installation below `backups/vm/`."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from deploy.vm.archive import SUFFIX
from deploy.vm.machine import VmError
from infra.contract.errors import ContractError

PREFIX = "backups/vm/"


class Place(Protocol):
    """Place of backups. Methods raise VmError and OSError."""

    def store(self, path: Path) -> str:
        """Store a file as a new backup; return its name."""
        ...

    def fetch(self, name: str | None, target: Path) -> str:
        """Write a backup, by default the newest one, to a file; return its name."""
        ...

    def prune(self, keep: int) -> None:
        """Delete all but the newest backups."""
        ...


class Folder:
    """Backups as files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def store(self, path: Path) -> str:
        """Move a file of the same file system into the folder."""
        name = f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S-%fZ}"
        path.rename(self._folder / f"{name}{SUFFIX}")
        return name

    def fetch(self, name: str | None, target: Path) -> str:
        """Copy a backup to the target."""
        names = self._names()
        wanted = name or next(iter(names), "")
        if wanted not in names:
            raise VmError(
                f"there is no backup {wanted} in {self._folder}" if wanted else f"{self._folder} has no backup"
            )
        shutil.copyfile(self._folder / f"{wanted}{SUFFIX}", target)
        return wanted

    def prune(self, keep: int) -> None:
        """Delete all but the newest backups."""
        for name in self._names()[keep:]:
            (self._folder / f"{name}{SUFFIX}").unlink()

    def _names(self) -> list[str]:
        return sorted((path.name.removesuffix(SUFFIX) for path in self._folder.glob(f"*Z{SUFFIX}")), reverse=True)


class Bucket:
    """Backups in the bucket of the installation. `variables`: settings of the object store."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        # Not at the top: these need what is installed in a release, which the first installation has not yet.
        from infra.settings import Env, S3Settings, SettingsError
        from infra.valkey_backup.backups import Backups

        try:
            self._backups = Backups(S3Settings.from_env(Env(variables)), PREFIX, SUFFIX)
        except SettingsError as error:
            raise VmError(str(error)) from error

    def store(self, path: Path) -> str:
        """Upload a file, and remove it here."""
        try:
            name = self._backups.store(path).name
        except ContractError as error:
            raise VmError(str(error)) from error
        path.unlink()
        return name

    def fetch(self, name: str | None, target: Path) -> str:
        """Download a backup, and check its SHA-256."""
        try:
            return self._backups.fetch(name, target)
        except ContractError as error:
            raise VmError(str(error)) from error

    def prune(self, keep: int) -> None:
        """Delete all but the newest backups."""
        try:
            self._backups.prune(keep)
        except ContractError as error:
            raise VmError(str(error)) from error
