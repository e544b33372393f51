"""Index of the files and folders of one claimed run: its record's entries, and the changes not in the record yet."""

import secrets
import stat
from collections.abc import Mapping
from itertools import count

from msgspec import structs

from infra.contract.errors import FileMissing
from infra.contract.files import FileEntry, FileInfo, FolderEntry
from infra.contract.paths import is_reserved, workspace_path
from infra.workspace.bucket import StoredObject

_PLAIN, _EXECUTABLE = 0o644, 0o755


class FileIndex:
    """Files and folders of a claimed run by path, and the source of keys for new objects.

    A new object never replaces another one: its key contains the claim's fence, a number, and a random part, because a
    Redis that has lost its last changes gives a fence again. So an object that a worker stores after the loss of its
    lease does no harm, because no record names it.
    """

    def __init__(self, fence: int, files: Mapping[str, FileEntry], folders: Mapping[str, FolderEntry]) -> None:
        self._fence = fence
        self._numbers = count(1)
        self._random = secrets.token_hex(3)
        self._files = dict(files)
        self._folders = dict(folders)
        self._uncommitted: dict[str, FileEntry | None] = {}
        self._uncommitted_folders: dict[str, FolderEntry | None] = {}

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """Files by path, uncommitted changes included."""
        return self._files

    @property
    def folders(self) -> Mapping[str, FolderEntry]:
        """Folders that no file implies by path, uncommitted changes included."""
        return self._folders

    def get(self, path: str) -> FileEntry:
        """Return the entry of a file. Raises FileMissing, InvalidInput."""
        entry = self._files.get(workspace_path(path))
        if entry is None:
            raise FileMissing(f"there is no file '{path}'")
        return entry

    def set(self, path: str, entry: FileEntry | None) -> None:
        """Add, replace or (None) delete a file, as an uncommitted change."""
        self._uncommitted[path] = entry
        if entry:
            self._files[path] = entry
        else:
            self._files.pop(path, None)

    def set_folder(self, path: str, entry: FolderEntry | None) -> None:
        """Add, replace or (None) remove a folder, as an uncommitted change."""
        self._uncommitted_folders[path] = entry
        if entry:
            self._folders[path] = entry
        else:
            self._folders.pop(path, None)

    def take_uncommitted(self) -> dict[str, FileEntry | None]:
        """Return the changes of files since the last call (None: deleted) and forget them."""
        changes, self._uncommitted = self._uncommitted, {}
        return changes

    def take_uncommitted_folders(self) -> dict[str, FolderEntry | None]:
        """Return the changes of folders since the last call (None: removed) and forget them."""
        changes, self._uncommitted_folders = self._uncommitted_folders, {}
        return changes

    def sizes(self) -> dict[str, int]:
        """Return bytes by path. Files in `.run/` are left out, because they do not count towards the limits."""
        return {path: entry.size_bytes for path, entry in self._files.items() if not is_reserved(path)}

    def new_file_key(self, path: str) -> str:
        """Return an unused object key for a version of the file, without the run's prefix."""
        return f"files/{self.new_number()}-{self._random}/{path}"

    def new_blob_name(self) -> str:
        """Return an unused object key for bytes that are no file, without the run's prefix."""
        return f"kept/{self.new_number()}-{self._random}"

    def new_number(self) -> str:
        """Return a number that no other object of this claim has: `{fence}-{number}`."""
        return f"{self._fence}-{next(self._numbers)}"


def entry_of(key: str, stored: StoredObject, *, mode: int, mtime_ns: int) -> FileEntry:
    """Return the entry of a file that was just stored."""
    entry = FileEntry(key=key, size_bytes=stored.size_bytes, modified_ms=stored.modified_ms)
    return with_metadata(entry, mode=mode, mtime_ns=mtime_ns)


def with_metadata(entry: FileEntry, *, mode: int, mtime_ns: int) -> FileEntry:
    """Return the entry with other permissions and another modification time."""
    kept = None if mode in {_PLAIN, _EXECUTABLE} else mode
    return structs.replace(entry, executable=bool(mode & stat.S_IXUSR), mode=kept, mtime_ns=mtime_ns)


def mode_of(entry: FileEntry) -> int:
    """Return the permission bits of a file."""
    if entry.mode is not None:
        return entry.mode
    return _EXECUTABLE if entry.executable else _PLAIN


def mtime_ns_of(entry: FileEntry) -> int:
    """Return the modification time of a file; for an entry of version 1, the time when its object was stored."""
    return entry.modified_ms * 1_000_000 if entry.mtime_ns is None else entry.mtime_ns


def info_of(path: str, entry: FileEntry) -> FileInfo:
    """Return the description of a file for tools."""
    return FileInfo(path=path, size_bytes=entry.size_bytes, modified_ms=entry.modified_ms)
