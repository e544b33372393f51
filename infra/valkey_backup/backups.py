"""Backups in the object store, such as `backups/valkey/TIME.rdb`, with the SHA-256 in the metadata of the object."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from infra.contract.errors import FileMissing, FilesUnavailable
from infra.settings import S3Settings
from infra.valkey_backup import snapshot
from infra.workspace.client import build_client, translated_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "backups/valkey/"
SUFFIX = ".rdb"
NAME = re.compile(r"[0-9A-Za-z-]{1,64}")
CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Backup:
    """Stored backup: its name and its length in bytes."""

    name: str
    size: int


class Backups:
    """Backups in a bucket, below a prefix of their own. Methods raise FilesUnavailable."""

    def __init__(self, settings: S3Settings, prefix: str = PREFIX, suffix: str = SUFFIX) -> None:
        self._bucket = settings.bucket
        self._prefix = prefix
        self._suffix = suffix
        self._client: S3Client = build_client(settings)

    def stored(self) -> list[Backup]:
        """Return all backups, the newest first."""
        with translated_errors(f"bucket {self._bucket}", object_call=False):
            return sorted(self._listed(), key=lambda backup: backup.name, reverse=True)

    def _listed(self) -> Iterator[Backup]:
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix):
            for entry in page.get("Contents", []):
                if entry["Key"].endswith(self._suffix):
                    yield Backup(entry["Key"].removeprefix(self._prefix).removesuffix(self._suffix), entry["Size"])

    def save(self, url: str, folder: Path, now: datetime | None = None) -> Backup:
        """Store a snapshot of the server as a new backup; `folder` has room for it.

        Raises StoreUnavailable and StoreRejected too.
        """
        path = folder / "snapshot.rdb"
        with path.open("wb") as file:
            snapshot.take(url, file)
        saved = self.store(path, now)
        path.unlink()
        return saved

    def store(self, path: Path, now: datetime | None = None) -> Backup:
        """Store a file as a new backup. Raises OSError too."""
        name = f"{now or datetime.now(UTC):%Y-%m-%dT%H-%M-%S-%fZ}"
        size = path.stat().st_size
        with path.open("rb") as file, translated_errors(f"backup {name}"):
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._key(name),
                Body=file,
                ContentLength=size,
                Metadata={"sha256": _sha256(path)},
            )
        return Backup(name, size)

    def prune(self, keep: int) -> int:
        """Delete all but the newest backups; return the number of the deleted ones."""
        old = self.stored()[keep:]
        for backup in old:
            with translated_errors(f"backup {backup.name}"):
                self._client.delete_object(Bucket=self._bucket, Key=self._key(backup.name))
        return len(old)

    def fetch(self, name: str | None, target: Path) -> str:
        """Write a backup, by default the newest one, to a file; return its name. Raises FileMissing too."""
        if name is None:
            newest = self.stored()[:1]
            if not newest:
                raise FileMissing(f"there is no backup below {self._prefix} in the bucket {self._bucket}")
            name = newest[0].name
        if not NAME.fullmatch(name):
            raise FileMissing(f"there is no backup named {name[:100]!r}")
        with translated_errors(f"backup {name}"):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(name))
            with target.open("wb") as file:
                for chunk in answer["Body"].iter_chunks(CHUNK):
                    file.write(chunk)
        if _sha256(target) != answer["Metadata"].get("sha256"):
            raise FilesUnavailable(f"backup {name} is damaged: its SHA-256 is not the one that was stored with it")
        return name

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}{self._suffix}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
