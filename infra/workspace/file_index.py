"""Index of the files of one claimed run: its record's entries, plus the changes that are not in the record yet."""

from collections.abc import Mapping
from itertools import count

from infra.contract.errors import FileMissing
from infra.contract.files import FileEntry, FileInfo
from infra.contract.paths import RESERVED, workspace_path
from infra.workspace.bucket import StoredObject


class FileIndex:
    """Files of a claimed run by path, and the source of keys for new objects.

    A new object never replaces another one: its key contains the claim's fence and a number. So an object that a worker
    stores after the loss of its lease does no harm, because no record names it.
    """

    def __init__(self, fence: int, files: Mapping[str, FileEntry]) -> None:
        self._fence = fence
        self._numbers = count(1)
        self._files = dict(files)
        self._uncommitted: dict[str, FileEntry | None] = {}

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """Files by path, uncommitted changes included."""
        return self._files

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

    def take_uncommitted(self) -> dict[str, FileEntry | None]:
        """Return the changes since the last call (None: deleted) and forget them."""
        changes, self._uncommitted = self._uncommitted, {}
        return changes

    def sizes(self) -> dict[str, int]:
        """Return bytes by path. Files in `.run/` are left out, because they do not count towards the limits."""
        return {path: entry.size_bytes for path, entry in self._files.items() if not is_reserved(path)}

    def new_file_key(self, path: str) -> str:
        """Return an unused object key for a version of the file, without the run's prefix."""
        return f"files/{self._fence}-{next(self._numbers)}/{path}"

    def new_blob_name(self) -> str:
        """Return an unused object key for bytes that are no file, without the run's prefix."""
        return f"kept/{self._fence}-{next(self._numbers)}"


def entry_of(key: str, stored: StoredObject, *, executable: bool = False) -> FileEntry:
    """Return the entry of a file that was just stored."""
    return FileEntry(key=key, size_bytes=stored.size_bytes, modified_ms=stored.modified_ms, executable=executable)


def info_of(path: str, entry: FileEntry) -> FileInfo:
    """Return the description of a file for tools."""
    return FileInfo(path=path, size_bytes=entry.size_bytes, modified_ms=entry.modified_ms)


def is_reserved(path: str) -> bool:
    """Return True for a path in the platform's own folder `.run/`."""
    return path.split("/", 1)[0] == RESERVED
