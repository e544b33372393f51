"""Names of all entries in a run's journal, and of the calls whose effects the entries record.

The journal is part of the run's hash: entry `KEY` is the hash field `journal:KEY`, its value is JSON.

| entry | value |
|---|---|
| `step:{i}` | result of the completed step `i`, counted from 0 |
| `step:{i}:files` | changes which that step made to the workspace's files: path → file entry, null for a deleted one |
| `step:{i}:folders` | the same for folders that no file implies: path → folder entry, null if it is not kept now |
| `execution` | OpenExecution: program that outlives its worker, until its result is journaled; `retry` removes it |
| `execution:logged` | number of outputs of that execution that are in the log; `retry` removes it |
| `executions` | number of the last such execution of the run |
| `started` | key of the last non-idempotent entry that was begun; `retry` removes it |
| `input:{path}` | change that an input file made which was copied from another run: path → file entry |
| `tool:{n}:{i}` | outcome of call `i` in exchange `n` of an agent: a CallOutcome, with what the agent adds |
| `forked` | `true` once the steps of the source run have been taken over |
| `session` | what the last call with a long-lived program has noted about it, such as the URL of a browser's page |
| `continued` | conversation of the run that this run continues, once it has been taken over |
| `continued:files`, `continued:folders` | files and folders of that run |

The result of a step is a StepRecord. Its changes include those of its failed executions, so these entries may be there
before the result. A value larger than MAX_INLINE_BYTES is stored as a blob in the object store; the journal then holds
a BlobRef.
"""

import re
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec

FIELD_PREFIX: Final = "journal:"
"""Prefix of the hash fields that hold journal entries."""

STARTED: Final = "started"
"""Key of the entry that names the last non-idempotent entry that was begun.

If it names an entry that has no result, the worker died while the call ran: the effects of the call are unknown.
"""

EXECUTION: Final = "execution"
"""Key of the entry with the open execution of the run. A retried step is executed anew, so `retry` removes it."""

LOGGED: Final = "execution:logged"
"""Key of the entry that counts the outputs of the open execution that are in the log."""

EXECUTIONS: Final = "executions"
"""Key of the entry with the number of the last execution. Numbers are never used twice, not even after a retry."""

FORKED: Final = "forked"
"""Key of the entry that marks a fork as done."""

SESSION: Final = "session"
"""Key of the entry with the note of the last call that used a long-lived program. The program itself ends with its
worker, or when the run waits. A run with this entry may have a program that runs without a worker, for a while."""

CONTINUED: Final = "continued"
"""Key of the entry with the conversation that a run continues."""

MAX_INLINE_BYTES: Final = 32 * 1024
"""Largest value, as JSON, that the journal holds itself."""

MAX_LISTED_CHARS: Final = 500
"""Characters of the message of a call in a list of calls."""

_BLOB_REF_START = b'{"$kept":'
_CALL = re.compile(r"(?:tool:|call-)([0-9]{1,9})[:-]([0-9]{1,9})")


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


class CallOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Outcome of one call of an agent. `refused`: it was not executed (invalid, denied, or superfluous).

    `text` is what the model has read of the result, `result` the short values of it, or what a control tool has
    decided. `step`: index of the step in the model's plan. `code` and `message` say why a call has failed or was
    refused. Times are in ms, `started_ms` since the epoch.
    """

    tool: str
    status: Literal["succeeded", "failed", "refused"]
    text: str
    step: int
    started_ms: int
    duration_ms: int = 0
    code: str = ""
    message: str = ""
    result: dict[str, Any] = {}

    def shortened(self) -> "CallOutcome":
        """Return the outcome without its text and its result, and with the first characters of its message."""
        left_out = {"text": "", "result": {}, "message": self.message[:MAX_LISTED_CHARS]}
        return CallOutcome(**{name: getattr(self, name) for name in CallOutcome.__struct_fields__} | left_out)


class BlobRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reference to a blob in the object store; the journal holds it in place of a large value.

    `times` are those of a StepRecord, so that a list of steps need not fetch the blobs; `call`, for the same reason, is
    a CallOutcome without its text and its result.
    """

    name: str = msgspec.field(name="$kept")
    times: StepTimes | None = None
    call: CallOutcome | None = None

    @classmethod
    def of(cls, name: str, text: str) -> "BlobRef":
        """Return the reference to the blob `name`, which holds this JSON."""
        with suppress(msgspec.ValidationError):
            return cls(name=name, call=msgspec.json.decode(text, type=CallOutcome).shortened())
        with suppress(msgspec.ValidationError):
            return cls(name=name, times=msgspec.json.decode(text, type=StepRecord).times)
        return cls(name=name)


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


def call_position(name: str) -> tuple[int, int] | None:
    """Position of a call (exchange, index within it) by its key `tool:{n}:{i}` or its name `call-{n}-{i}`."""
    found = _CALL.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def blob_ref(text: bytes) -> BlobRef | None:
    """Reference that a journal value consists of; None if it is the value itself."""
    return msgspec.json.decode(text, type=BlobRef) if text.startswith(_BLOB_REF_START) else None
