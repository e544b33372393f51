"""Messages between a worker and the runner in a pod: manifest, result, and the records of the control port.

The runner reads and writes them with the standard library: `infra/pod_runner/task.py`, `call.py`, `line_log.py`.
"""

from typing import Annotated, Literal

import msgspec

from infra.contract.errors import (
    ContractError,
    ExecutorUnavailable,
    FilesUnavailable,
    HostExhausted,
    InputChanged,
    LimitExceeded,
)
from infra.contract.execution import Command, LineEnd, LinePart, OutputStream
from infra.contract.lending import LentFile, LentLimits, LentSlots, LentWorkspace, ReturnedChanges

LINE_BYTES = 16 * 1024 * 1024
"""Limit of the numbered lines of a call. The log of a run shows 256 KB of them."""
MAX_RESULT_BYTES = 8 * 1024 * 1024
MAX_MESSAGE_CHARS = 2000

Count = Annotated[int, msgspec.Meta(ge=0)]


class CallManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Manifest of a call. `transfer_s` limits the time for fetching the files, and for storing them.

    `proxy_url` is the URL of the egress proxy with the token of the call; empty for a program without a network.
    """

    command: Command
    files: list[LentFile]
    folders: dict[str, int]
    slots: LentSlots
    limits: LentLimits
    line_bytes: int
    transfer_s: float
    proxy_url: str = ""


class SessionManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Task of a session, which goes through the control port. `proxy_url` as in CallManifest.

    `silence_s`: time without a message of the worker after which the runner ends the session.
    """

    command: Command
    max_reply_bytes: int
    silence_s: float
    proxy_url: str = ""


class CallResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a call. `cancelled`: the program was ended from outside; `lines` counts the numbered lines.

    `error` has code and message if the call could not be carried out. A program cannot write the result, but it can
    print and store what it likes.
    """

    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)] | None
    timed_out: bool
    cancelled: bool
    duration_ms: Count
    stdout_bytes: Count
    stderr_bytes: Count
    lines: Count
    error: tuple[str, str] | None
    changes: ReturnedChanges | None

    def failure(self) -> ContractError | None:
        """Return why the call could not be carried out, None if it was."""
        if self.error is None:
            return None
        code, message = self.error
        kinds: dict[str, type[ContractError]] = {
            "executor_unavailable": ExecutorUnavailable,
            "files_unavailable": FilesUnavailable,
            "limit_exceeded": LimitExceeded,
        }
        if code == "input_changed":
            return InputChanged(message[:MAX_MESSAGE_CHARS])
        return kinds.get(code, HostExhausted)(message[:MAX_MESSAGE_CHARS])


class LineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Record of the control port: a line with its number, the note that lines were cut, the end, or none of these."""

    n: int = 0
    s: OutputStream = "stdout"
    t: str = ""
    more: bool = False
    replaces: bool = False
    end: LineEnd | Literal[True] = "\n"
    cut: bool = False
    problem: str = ""
    error: str = ""

    def part(self) -> LinePart:
        """Return the line."""
        return LinePart(self.t, self.more, self.replaces, "\n" if self.end is True else self.end)


def manifest(command: Command, lent: LentWorkspace, transfer_s: float, proxy_url: str) -> bytes:
    """Return the manifest of a call, as it is stored."""
    return msgspec.json.encode(
        CallManifest(
            command=command,
            files=lent.files,
            folders=dict(lent.folders),
            slots=lent.slots,
            limits=lent.limits,
            line_bytes=LINE_BYTES,
            transfer_s=transfer_s,
            proxy_url=proxy_url,
        )
    )


def session_manifest(command: Command, max_reply_bytes: int, silence_s: float, proxy_url: str) -> bytes:
    """Return the task of a session, as it goes through the control port."""
    return msgspec.json.encode(
        SessionManifest(command=command, max_reply_bytes=max_reply_bytes, silence_s=silence_s, proxy_url=proxy_url)
    )
