"""Task of a pod: the program, the files of its workspace, and signed URLs. Parsed from the manifest in the store.

The worker writes the manifest; `infra/k8s_executor/protocol.py` has its types there.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.contract.execution import Command, ExecLimits
from infra.workspace.limits import WorkspaceLimits

MAX_BYTES = 16 * 1024 * 1024
"""Size limit of a manifest: 2,000 files with URLs of 2 KB and paths of 512 bytes need a third of it."""


class BadManifest(Exception):
    """Manifest that this runner cannot read: damaged, or written by another release."""


class UnexpectedRequest(Exception):
    """Request to a session that no worker of this release makes at this moment."""


@dataclass(frozen=True)
class TaskFile:
    """File to fetch before the program starts. `sha256` (hex) is compared if given; times in ns since the epoch."""

    path: str
    url: str
    size_bytes: int
    mode: int
    mtime_ns: int
    sha256: str | None = None


@dataclass(frozen=True)
class TaskSlots:
    """Signed URLs, each for one PUT. `files` are numbered from 0; `rest` takes a tar file with all further files."""

    files: tuple[str, ...]
    rest: str
    stdout: str
    stderr: str
    lines: str
    result: str


@dataclass(frozen=True, kw_only=True)
class TaskLimits(WorkspaceLimits):
    """Limits of the workspace. `folders` limits the folders that are reported."""

    folders: int


@dataclass(frozen=True)
class PodTask:
    """Task of a pod. `folders` has the permission bits of folders that are empty or not 0755.

    `line_bytes` limits the numbered lines; `transfer_s` limits the time for each of the two transfers of files.
    `proxy_url` is the proxy of a program with a network.
    """

    command: Command
    files: tuple[TaskFile, ...]
    folders: Mapping[str, int]
    slots: TaskSlots
    limits: TaskLimits
    line_bytes: int
    transfer_s: float
    proxy_url: str = ""


@dataclass(frozen=True)
class SessionTask:
    """Task of a pod whose program answers requests, as it comes through the control port.

    `silence_s`: time without a message of the worker after which the worker counts as lost. `proxy_url` as in PodTask.
    """

    command: Command
    max_reply_bytes: int
    silence_s: float
    proxy_url: str = ""


def parse(data: bytes) -> PodTask:
    """Parse a manifest. Raises BadManifest."""
    try:
        fields: dict[str, Any] = json.loads(data)
        slots = fields.pop("slots")
        slots["files"] = tuple(slots["files"])
        return PodTask(
            command=_command(fields.pop("command")),
            files=tuple(TaskFile(**file) for file in fields.pop("files")),
            slots=TaskSlots(**slots),
            limits=TaskLimits(**fields.pop("limits")),
            **fields,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The error's text may hold a URL.
        raise BadManifest(f"the manifest cannot be read ({type(error).__name__}): is it of another release?") from None


def parse_session(data: bytes) -> SessionTask:
    """Parse the task of a session. Raises BadManifest."""
    try:
        fields: dict[str, Any] = json.loads(data)
        return SessionTask(command=_command(fields.pop("command")), **fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadManifest(f"the task cannot be read ({type(error).__name__}): is it of another release?") from None


def _command(fields: dict[str, Any]) -> Command:
    limits = ExecLimits(**fields.pop("limits"))
    return Command(limits=limits, network=tuple(fields.pop("network", ())), **fields)
