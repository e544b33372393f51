"""Backup of a machine: a tar file with a snapshot of Valkey, the settings, and a list of both with their SHA-256."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from deploy.vm.machine import VmError
from infra.contract.errors import ContractError
from infra.valkey_backup import snapshot

SUFFIX = ".tar"
FORMAT = 1
LIST = "list.json"
SNAPSHOT = "valkey.rdb"
SETTINGS = "settings"
MAX_LIST_BYTES = 1024 * 1024
_CHUNK = 1024 * 1024


def create(target: Path, url: str, settings: Path, bucket: str) -> None:
    """Write a backup. `url`: Valkey; `bucket`: where the files and logs of the runs are, which it does not contain."""
    work = target.with_name(f"{target.name}.snapshot")
    try:
        with _private(work) as file:
            try:
                snapshot.take(url, file)
            except ContractError as error:
                raise VmError(f"no snapshot: {error}") from error
        members = [(SNAPSHOT, work), *_files(settings)]
        listed = {
            "format": FORMAT,
            "made": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "bucket": bucket,
            "sha256": {name: _sha256(path) for name, path in members},
        }
        with _private(target) as file, tarfile.open(fileobj=file, mode="w") as tar:
            text = json.dumps(listed, indent=2).encode()
            head = tarfile.TarInfo(LIST)
            head.size = len(text)
            tar.addfile(head, io.BytesIO(text))
            for name, path in members:
                tar.add(path, name, recursive=False, filter=_plain)
    finally:
        work.unlink(missing_ok=True)


def unpack(source: Path, folder: Path) -> str:
    """Unpack a backup into an empty folder, and check each file; return the name of the bucket of the runs' files."""
    folder.mkdir(mode=0o700)
    try:
        with tarfile.open(source) as tar:
            listed = _listed(tar)
            for member in tar:
                if member.name == LIST:
                    continue
                if not member.isreg() or member.name not in listed["sha256"]:
                    raise VmError(f"{source.name} is no backup of a machine: it has an entry that is not in its list")
                _write(tar, member, folder / PurePosixPath(member.name))
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError) as error:
        raise VmError(f"{source.name} is no backup of a machine, or is damaged ({type(error).__name__})") from error
    for name, digest in listed["sha256"].items():
        path = folder / name
        if not path.is_file() or _sha256(path) != digest:
            raise VmError(f"{source.name} is damaged: {name} is missing, or its SHA-256 is another one")
    return str(listed["bucket"])


def _listed(tar: tarfile.TarFile) -> dict[str, dict[str, str]]:
    """Return the list of a backup, whose names are safe. Raises VmError, ValueError, KeyError, TypeError, TarError."""
    first = tar.next()
    text = tar.extractfile(first) if first and first.name == LIST and first.isreg() else None
    if text is None:
        raise ValueError(LIST)
    listed = json.loads(text.read(MAX_LIST_BYTES))
    if listed["format"] != FORMAT:
        raise VmError("the backup was made by a newer release; install that one first")
    for name in listed["sha256"]:
        parts = PurePosixPath(name).parts
        if name != SNAPSHOT and (parts[:1] != (SETTINGS,) or len(parts) > 3 or ".." in parts):
            raise ValueError(name)
    found: dict[str, dict[str, str]] = listed
    return found


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = tar.extractfile(member)
    with _private(path) as file:
        while content and (data := content.read(_CHUNK)):
            file.write(data)


def _files(settings: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of the operator and the secrets; what is generated from them is not needed."""
    for path in sorted(settings.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            yield f"{SETTINGS}/{path.name}", path


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


@contextmanager
def _private(path: Path) -> Iterator[io.BufferedWriter]:
    """Write a file that only its owner can read; it is on the disk at the end."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
