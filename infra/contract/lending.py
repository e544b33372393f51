"""Port to a workspace that is lent to a pod: signed URLs out, changes back.

A pod holds no key of the object store. For a call it gets one signed URL per file, and numbered *slots*: signed URLs
for one PUT each, because the names of the files that a program will change are not known. A Loan names the objects
behind these URLs. It is small, so that it can be journaled: the next owner of a run takes over what a pod stores for a
former one. As with every write, an object counts only when the record names it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import msgspec

from infra.contract.files import DirectoryFiles, FileChanges

ObjectName: TypeAlias = Literal["manifest.json", "stdout", "stderr", "lines", "rest.tar", "result.json"]


class Loan(msgspec.Struct, frozen=True, kw_only=True):
    """Objects of one call of a pod. `number` is unique within the run; `slots` counts those for changed files."""

    number: str
    slots: int


class OpenExecution(msgspec.Struct, frozen=True, kw_only=True):
    """Execution of a program that outlives its worker, as the journal holds it while its result is not journaled.

    `call` names the tool call, `number` the execution within the run. `token` is the secret of the control port.
    `call_began_ms`: when the call began, by the clock of Redis; 0 if that is not known.
    """

    call: str
    number: int
    loan: Loan
    token: str
    call_began_ms: int = 0


class LentFile(msgspec.Struct, frozen=True, kw_only=True):
    """File of the workspace for a pod to fetch. `sha256` (hex) is to be compared if given; times in ns."""

    path: str
    url: str
    size_bytes: int
    mode: int
    mtime_ns: int
    sha256: str | None


class LentSlots(msgspec.Struct, frozen=True, kw_only=True):
    """Signed URLs for one PUT each."""

    files: list[str]
    rest: str
    stdout: str
    stderr: str
    lines: str
    result: str


class LentLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a workspace, as WorkspaceLimits has them; `folders` limits those that no file implies."""

    file_bytes: int
    total_bytes: int
    files: int
    entries: int
    folders: int


class LentWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """Workspace as a pod gets it. `folders` has the permission bits of those that no file implies or that differ."""

    files: list[LentFile]
    folders: Mapping[str, int]
    slots: LentSlots
    limits: LentLimits


class ReturnedFile(msgspec.Struct, frozen=True, kw_only=True):
    """File that a program has changed. `slot` None: the file is in the tar file."""

    path: str
    slot: int | None
    size_bytes: int
    sha256: str
    mode: int
    mtime_ns: int


class ReturnedChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that a pod reports.

    `metadata` has mode and time of files with the same content; `folders` has all folders that no file implies.
    """

    files: list[ReturnedFile]
    metadata: dict[str, tuple[int, int]]
    deleted: list[str]
    folders: dict[str, int]
    skipped: list[str]
    unkept_folders: int


class LendableFiles(Protocol):
    """Port for executors whose programs run elsewhere. All methods raise FilesUnavailable."""

    async def lend(self, slots: int, expires_s: int) -> tuple[Loan, LentWorkspace]:
        """Return the workspace with URLs that are valid for `expires_s` seconds. They are secrets."""
        ...

    async def publish(self, loan: Loan, manifest: bytes) -> None:
        """Store the manifest of a loan."""
        ...

    async def manifest_url(self, loan: Loan, expires_s: int) -> str:
        """Return a URL of the manifest of a loan, which is a secret."""
        ...

    async def withdraw(self, loan: Loan) -> None:
        """Delete the manifest of a loan. A pod that has not fetched the manifest will not run its program."""
        ...

    async def fetch(self, loan: Loan, name: ObjectName, max_bytes: int) -> bytes:
        """Return at most the first `max_bytes` of an object of a loan. Raises FileMissing."""
        ...

    async def save(self, loan: Loan, name: ObjectName, max_bytes: int, target: Path) -> None:
        """Write at most the first `max_bytes` of an object of a loan into a file. Raises FileMissing, HostExhausted."""
        ...

    async def take_back(self, loan: Loan, changes: ReturnedChanges) -> FileChanges:
        """Add the changes to the workspace, as uncommitted ones.

        The pod is not trusted: raises LimitExceeded for too much, and InvalidInput for what no runner returns. After
        an error nothing is added.
        """
        ...


class ExecutorFiles(DirectoryFiles, LendableFiles, Protocol):
    """Workspace as executors use it: as a directory, or lent to a pod."""
