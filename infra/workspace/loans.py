"""Loans of a workspace to a pod (infra/contract/lending.py). All methods block.

The objects of a loan are `files/{fence}-{number}/…` below the run's prefix: `manifest.json`, `slot-{n}`, `result.json`
and others. A changed file keeps its slot as object: the URL with which it was stored stays usable for a while, so its
entry has the SHA-256 of its bytes, like the entry of a client's upload, and each read compares it.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, cast

from msgspec import structs

from infra.contract.errors import FileMissing, FilesUnavailable, InvalidInput
from infra.contract.files import MAX_FOLDERS, FileChanges, FileEntry, FolderEntry
from infra.contract.lending import (
    LentFile,
    LentLimits,
    LentSlots,
    LentWorkspace,
    Loan,
    ObjectName,
    ReturnedChanges,
    ReturnedFile,
)
from infra.contract.paths import is_reserved, writable_path
from infra.workspace.bucket import Bucket
from infra.workspace.cancellation import Cancellation
from infra.workspace.directory_sync import folder_modes, without_hidden
from infra.workspace.file_index import FileIndex, entry_of, info_of, mode_of, mtime_ns_of, with_metadata
from infra.workspace.limits import WorkspaceLimits
from infra.workspace.threads import each
from infra.workspace.tree import FOLDER_MODE, MAX_SKIPPED, PERMISSIONS

MEMORY_BYTES = 1024 * 1024
"""Size up to which a file of the tar file is kept in memory on its way."""
MAX_NAME_CHARS = 300
_MAX_NS = 2**63 - 1


class Loans:
    """Loans of one claimed run."""

    def __init__(self, bucket: Bucket, prefix: str, index: FileIndex, limits: WorkspaceLimits) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._index = index
        self._limits = limits

    def lend(self, slots: int, expires_s: int) -> tuple[Loan, LentWorkspace]:
        """See LendableFiles."""
        loan = Loan(number=self._index.new_number(), slots=slots)
        wanted = without_hidden(self._index.files)
        modes = folder_modes(wanted, self._index.folders)
        files = [
            LentFile(
                path=path,
                url=self._bucket.link_for_get(self._prefix + entry.key, expires_s),
                size_bytes=entry.size_bytes,
                mode=mode_of(entry),
                mtime_ns=mtime_ns_of(entry),
                sha256=entry.sha256,
            )
            for path, entry in sorted(wanted.items())
        ]
        folders = {path: mode for path, mode in modes.items() if mode != FOLDER_MODE or path in self._index.folders}

        def put(name: str) -> str:
            return self._bucket.link_for_put(self._key(loan, name), expires_s, {})

        urls = LentSlots(
            files=[put(f"slot-{number}") for number in range(slots)],
            rest=put("rest.tar"),
            stdout=put("stdout"),
            stderr=put("stderr"),
            lines=put("lines"),
            result=put("result.json"),
        )
        limits = LentLimits(**asdict(self._limits), folders=MAX_FOLDERS)
        return loan, LentWorkspace(files=files, folders=folders, slots=urls, limits=limits)

    def publish(self, loan: Loan, manifest: bytes) -> None:
        """See LendableFiles."""
        self._bucket.put(self._key(loan, "manifest.json"), manifest, len(manifest))

    def manifest_url(self, loan: Loan, expires_s: int) -> str:
        """See LendableFiles."""
        return self._bucket.link_for_get(self._key(loan, "manifest.json"), expires_s)

    def withdraw(self, loan: Loan) -> None:
        """See LendableFiles."""
        self._bucket.delete(self._key(loan, "manifest.json"))

    def fetch(self, loan: Loan, name: ObjectName, max_bytes: int) -> bytes:
        """See LendableFiles."""
        return self._bucket.get(self._key(loan, name), max_bytes)

    def save(self, loan: Loan, name: ObjectName, max_bytes: int, target: Path) -> None:
        """See LendableFiles."""
        left = max_bytes
        with self._bucket.open(self._key(loan, name)) as chunks, target.open("wb") as file:
            for chunk in chunks:
                file.write(chunk[:left])
                left -= len(chunk)
                if left <= 0:
                    return

    def take_back(self, loan: Loan, changes: ReturnedChanges, cancellation: Cancellation) -> FileChanges:
        """See LendableFiles."""
        self._check(loan, changes)
        stored: dict[str, FileEntry] = {}

        def look(file: ReturnedFile) -> None:
            stored[file.path] = self._entry_in_slot(loan, file)

        each(look, [file for file in changes.files if file.slot is not None], cancellation)
        if rest := {file.path: file for file in changes.files if file.slot is None}:
            stored |= self._unpack(loan, rest)
        for path, entry in sorted(stored.items()):
            self._index.set(path, entry)
        for path, (mode, mtime_ns) in sorted(changes.metadata.items()):
            self._index.set(path, with_metadata(self._index.files[path], mode=mode, mtime_ns=_time(mtime_ns)))
        for path in changes.deleted:
            self._index.set(path, None)
        for path in self._index.folders.keys() - changes.folders.keys():
            self._index.set_folder(path, None)
        for path, mode in sorted(changes.folders.items()):
            folder = FolderEntry(mode=None if mode == FOLDER_MODE else mode)
            if self._index.folders.get(path) != folder:
                self._index.set_folder(path, folder)
        return FileChanges(
            written=[info_of(path, entry) for path, entry in sorted(stored.items())],
            deleted=sorted(changes.deleted),
            skipped=[_printable(name) for name in changes.skipped[: MAX_SKIPPED + 1]],
            unkept_folders=max(0, changes.unkept_folders),
        )

    def _key(self, loan: Loan, name: str) -> str:
        if not re.fullmatch(r"[0-9]{1,20}-[0-9]{1,20}", loan.number):
            raise InvalidInput(f"{loan.number!r} is no number of a loan")
        return f"{self._prefix}{_name(loan, name)}"

    def _check(self, loan: Loan, changes: ReturnedChanges) -> None:
        """Raise InvalidInput or LimitExceeded for what the runner would not return."""
        written = {file.path: file for file in changes.files}
        slots = [file.slot for file in changes.files if file.slot is not None]
        for path in (*written, *changes.folders):
            writable_path(path)
        known = {path for path in self._index.files if not is_reserved(path)}
        sound = (
            len(written) == len(changes.files),
            len(set(slots)) == len(slots) and all(0 <= slot < loan.slots for slot in slots),
            all(file.size_bytes >= 0 and re.fullmatch("[0-9a-f]{64}", file.sha256) for file in changes.files),
            changes.metadata.keys() <= known - written.keys(),
            set(changes.deleted) <= known - written.keys() - changes.metadata.keys(),
            len(changes.folders) <= MAX_FOLDERS,
            all(mode == mode & PERMISSIONS for mode in _modes(changes)),
        )
        if not all(sound):
            raise InvalidInput(f"the pod returned changes that no runner returns (check {sound.index(False) + 1})")
        sizes = self._index.sizes() | {path: file.size_bytes for path, file in written.items()}
        self._limits.check({path: size for path, size in sizes.items() if path not in set(changes.deleted)})

    def _entry_in_slot(self, loan: Loan, file: ReturnedFile) -> FileEntry:
        name = f"slot-{file.slot}"
        try:
            stored = self._bucket.stat(self._key(loan, name))
        except FileMissing:
            raise FilesUnavailable(f"the object store lost '{file.path}', which the pod has stored") from None
        if stored.size_bytes != file.size_bytes:
            raise InvalidInput(f"'{file.path}' has {stored.size_bytes} bytes, and not {file.size_bytes} as returned")
        entry = entry_of(_name(loan, name), stored, mode=file.mode, mtime_ns=_time(file.mtime_ns))
        return structs.replace(entry, sha256=file.sha256)

    def _unpack(self, loan: Loan, rest: dict[str, ReturnedFile]) -> dict[str, FileEntry]:
        """Store each file of the tar file as an object of its own."""
        found: dict[str, FileEntry] = {}
        try:
            with (
                self._bucket.open(self._key(loan, "rest.tar")) as chunks,
                tarfile.open(fileobj=cast("IO[bytes]", _Stream(chunks)), mode="r|") as archive,
            ):
                for member in archive:
                    file, content = rest.get(member.name), archive.extractfile(member)
                    if file is None or content is None or member.size != file.size_bytes or member.name in found:
                        raise InvalidInput(f"the tar file has an entry that was not returned: {member.name[:100]!r}")
                    found[member.name] = self._put(file, content)
        except tarfile.TarError as error:
            raise InvalidInput("the tar file with further files is damaged") from error
        if found.keys() != rest.keys():
            raise InvalidInput(f"the tar file lacks {len(rest.keys() - found.keys())} of the returned files")
        return found

    def _put(self, file: ReturnedFile, content: IO[bytes]) -> FileEntry:
        digest = hashlib.sha256()
        with SpooledTemporaryFile(MEMORY_BYTES) as held:
            while chunk := content.read(MEMORY_BYTES):
                digest.update(chunk)
                held.write(chunk)
            if digest.hexdigest() != file.sha256:
                raise InvalidInput(f"the tar file has other bytes for '{file.path}' than returned")
            held.seek(0)
            key = self._index.new_file_key(file.path)
            stored = self._bucket.put(self._prefix + key, cast("IO[bytes]", held), file.size_bytes)
        return entry_of(key, stored, mode=file.mode, mtime_ns=_time(file.mtime_ns))


class _Stream:
    """Stream over chunks, as tarfile reads it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._held) < size and (chunk := next(self._chunks, b"")):
            self._held += chunk
        data = bytes(self._held[:size])
        del self._held[:size]
        return data


def _name(loan: Loan, name: str) -> str:
    return f"files/{loan.number}/{name}"


def _modes(changes: ReturnedChanges) -> Iterator[int]:
    yield from (file.mode for file in changes.files)
    yield from (mode for mode, _ in changes.metadata.values())
    yield from changes.folders.values()


def _time(mtime_ns: int) -> int:
    return max(-_MAX_NS, min(mtime_ns, _MAX_NS))


def _printable(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name[:MAX_NAME_CHARS])
