"""Files and folders of a run: their entries in the record, and the three ports to a workspace.

When does a file written by a tool count? The tool's write stores its bytes under a new object key. The change then
waits among the workspace's uncommitted changes, and counts when `take_uncommitted` hands it to the run's next fenced
write, which stores it in the record together with the result of the step and its events, or not at all. A step that
fails stores its changes together with its last events. Until then no reader sees the file. If the worker dies or its
lease is lost before that write, the object stays unreferenced, and the repeated step starts on the workspace as it was.

When does an input file count? A run that was created but not started is told its input files one by one: an Input each,
for bytes that the client uploads itself, or for a file of another run. `start` fixes them: from then on no input is
added or replaced, the uploaded files are files of the run, and the worker copies the others before the first step. A
signed upload URL stays usable after `start`; so a reader compares what it reads with the SHA-256 of the entry.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, Self, TypeAlias

import msgspec

FILE_PREFIX = "file:"
"""Prefix of the hash fields that hold the entries of a run's files."""
MAX_INPUTS = 100
"""Most input files of a run."""


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """File as the run's record knows it. `key` is its object key without the run's prefix.

    A worker never writes an object twice, so an entry always refers to the same bytes. An input file is uploaded by a
    client, so its entry has the SHA-256 (hex) of its bytes, and whoever reads them compares it. `modified_ms` is when
    the object was stored, by the store's clock. `mtime_ns` is the modification time that programs see, in ns since the
    epoch; None in records of version 1. `mode` holds the permission bits, unless they are 0644, or 0755 for an
    executable file.
    """

    key: str
    size_bytes: int
    modified_ms: int
    executable: bool = False
    sha256: str | None = None
    mtime_ns: int | None = None
    mode: int | None = None


class FolderEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Folder that no file implies: nothing is stored in it, or its permission bits `mode` are not 0755."""

    mode: int | None = None


NO_FOLDERS: Mapping[str, FolderEntry] = MappingProxyType({})

MAX_FOLDERS = 1000
"""Maximum number of folders in a record; folders that files imply do not count."""


class Input(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Input file of a run that was announced before the run's start.

    Without `from_run`, a client uploads the object `entry.key` of this run. With it, `entry` is the file `source_path`
    of that run, whose object the worker copies.
    """

    entry: FileEntry
    from_run: str | None = None
    source_path: str | None = None


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """Input files of a run by path. `version` grows with each change, until `start` fixes them."""

    version: int
    files: dict[str, Input]

    def uploads(self) -> dict[str, FileEntry]:
        """Return the files that a client uploads, by path."""
        return {path: file.entry for path, file in self.files.items() if file.from_run is None}


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """File of a workspace. `modified_ms` is ms since the epoch by the object store's clock."""

    path: str
    size_bytes: int
    modified_ms: int


class FileChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that an executing tool made; `skipped` lists links and special files, which are never stored.

    A file whose times or permissions alone changed is not `written`. `unkept_folders` counts the folders beyond
    MAX_FOLDERS.
    """

    written: list[FileInfo]
    deleted: list[str]
    skipped: list[str]
    unkept_folders: int = 0


Changes: TypeAlias = Mapping[str, FileEntry | None]
"""Changes of a workspace's files by path; None: the file was deleted."""

FolderChanges: TypeAlias = Mapping[str, FolderEntry | None]
"""Changes of a workspace's folders by path; None: files imply the folder now, or it was deleted."""


class ToolFiles(Protocol):
    """Port for tools: single files of the workspace, uncommitted changes included.

    Methods that fetch or store bytes raise FilesUnavailable if the object store fails, and HostExhausted. Those that
    fetch raise InputChanged for an input file that was overwritten.
    """

    async def read(self, path: str, max_bytes: int | None = None, offset: int = 0) -> bytes:
        """Return all bytes of a file, or at most `max_bytes` of them from `offset` on, which may be beyond its end.

        Raises FileMissing.
        """
        ...

    async def write(self, path: str, data: bytes) -> FileInfo:
        """Store a whole file. Raises LimitExceeded."""
        ...

    async def list(self, folder: str = "") -> list[FileInfo]:
        """Return all files, or those below one folder, sorted by path."""
        ...

    async def delete(self, path: str) -> None:
        """Delete a file. Raises FileMissing."""
        ...


class DirectoryFiles(Protocol):
    """Port for executors: the workspace as a directory. Errors as in ToolFiles."""

    async def materialise(self, directory: Path) -> None:
        """Make `directory` hold exactly the workspace's files and folders; fetches only what is not there yet."""
        ...

    async def store_changes(self, directory: Path) -> FileChanges:
        """Store what changed in `directory` since `materialise`. Raises LimitExceeded, with nothing stored."""
        ...

    async def check(self, directory: Path) -> None:
        """Raise LimitExceeded if `directory` holds more than could be stored; stores nothing."""
        ...


class JournaledFiles(Protocol):
    """Port for the run context: changes on their way into the record, and large journal values.

    Errors as in ToolFiles.
    """

    def take_uncommitted(self) -> dict[str, FileEntry | None]:
        """Return and forget the changes since the last call (None: deleted), for the run's next fenced write."""
        ...

    def take_uncommitted_folders(self) -> dict[str, FolderEntry | None]:
        """Return and forget the changes of folders since the last call, as `take_uncommitted` does for files."""
        ...

    def adopt_folders(self, changes: Sequence[FolderChanges]) -> None:
        """Repeat here the changes of folders made in another run's workspace."""
        ...

    async def adopt(self, source: Self, changes: Sequence[Changes]) -> Sequence[Changes]:
        """Repeat here the changes of files made in another run's workspace; return them with entries of this run.

        Objects are copied within the store, those included that a later change overwrites: the workspace after each
        of the steps must remain available to a further fork.
        """
        ...

    async def put_blob(self, data: bytes) -> str:
        """Store bytes that are no file of the workspace; return the name for `get_blob`."""
        ...

    async def get_blob(self, name: str) -> bytes:
        """Return the bytes of a blob. Raises FileMissing."""
        ...
