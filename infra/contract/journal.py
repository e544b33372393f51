"""Names of all entries in a run's journal, and of the calls whose effects the entries record.

The journal is part of the run's hash: entry `KEY` is the hash field `journal:KEY`, its value is JSON.

| entry | value |
|---|---|
| `step:{i}` | result of the completed step `i`, counted from 0 |
| `step:{i}:files` | changes which that step made to the workspace's files: path → file entry, null for a deleted one |
| `step:{i}:folders` | the same for folders that no file implies: path → folder entry, null if it is not kept now |
| `started` | key of the last non-idempotent entry that was begun; `retry` removes it |
| `input:{path}` | change that an input file made which was copied from another run: path → file entry |
| `forked` | `true` once the steps of the source run have been taken over |
| `continued` | conversation of the run that this run continues, once it has been taken over |
| `continued:files`, `continued:folders` | files and folders of that run |

The result of a step is a StepRecord. A value larger than MAX_INLINE_BYTES is stored as a blob in the object store; the
journal then holds a BlobRef.
"""

from typing import Any, Final

import msgspec

FIELD_PREFIX: Final = "journal:"
"""Prefix of the hash fields that hold journal entries."""

STARTED: Final = "started"
"""Key of the entry that names the last non-idempotent entry that was begun.

If it names an entry that has no result, the worker died while the call ran: the effects of the call are unknown.
"""

FORKED: Final = "forked"
"""Key of the entry that marks a fork as done."""

CONTINUED: Final = "continued"
"""Key of the entry with the conversation that a run continues."""

MAX_INLINE_BYTES: Final = 32 * 1024
"""Largest value, as JSON, that the journal holds itself."""

_BLOB_REF_START = b'{"$kept":'


class StepTimes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a completed step began, in ms since the epoch, and how long it took. Records of version 1 lack the start."""

    started_ms: int | None = None
    duration_ms: int | None = None


class StepRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Value of a completed step."""

    tool: str
    duration_ms: int
    result: dict[str, Any]
    started_ms: int | None = None

    @property
    def times(self) -> StepTimes:
        """Start and duration."""
        return StepTimes(started_ms=self.started_ms, duration_ms=self.duration_ms)


class BlobRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reference to a blob in the object store; the journal holds it in place of a large value.

    `times` are those of a StepRecord, so that a list of steps need not fetch the blobs.
    """

    name: str = msgspec.field(name="$kept")
    times: StepTimes | None = None


def step_key(index: int) -> str:
    """Key of the result of a step."""
    return f"step:{index}"


def input_key(path: str) -> str:
    """Key of the change that an input file from another run makes to the workspace."""
    return f"input:{path}"


def files_key(key: str) -> str:
    """Key of the workspace changes that belong to the result under `key`."""
    return f"{key}:files"


def folders_key(key: str) -> str:
    """Key of the changes of folders that belong to the result under `key`."""
    return f"{key}:folders"


def call_name(step: int) -> str:
    """Name of the tool call of a plan's step: the same again when the call is repeated after a crash.

    Output files (`.run/{call}.stdout`) and executions are named after the call. A step of a plan makes one call, so
    the name holds the step alone; a strategy that makes several calls in a step needs a number beside it.
    """
    return f"step-{step}"


def blob_ref(text: bytes) -> BlobRef | None:
    """Reference that a journal value consists of; None if it is the value itself."""
    return msgspec.json.decode(text, type=BlobRef) if text.startswith(_BLOB_REF_START) else None
