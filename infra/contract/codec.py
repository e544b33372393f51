"""Between what Redis holds (text) and the models: the one place that knows the encoding of a record and of a batch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from infra.contract.models import (
    Attempt,
    Batch,
    Brief,
    Claim,
    Event,
    FileEntry,
    NewEvent,
    RunError,
    RunHead,
    RunLog,
    RunRecord,
    RunSpec,
    Segment,
    Writes,
)
from infra.contract.ports import Reply
from infra.contract.states import Status

HEAD_FIELDS = (
    "id",
    "user",
    "status",
    "brief",
    "attempt",
    "seq",
    "cancel",
    "created_ms",
    "queued_ms",
    "started_ms",
    "finished_ms",
    "error",
    "condemned",
)
LOG_FIELDS = (*HEAD_FIELDS, "segments")
RECORD_FIELDS = (*HEAD_FIELDS, "spec", "fence", "worker", "result", "input")
JOURNAL_PREFIX = "journal:"
FILE_PREFIX = "file:"
ATTEMPT_PREFIX = "attempt:"
_END = ":end"

_json = msgspec.json.Encoder(order="deterministic")
_batch = msgspec.json.Decoder(Batch)
_brief = msgspec.json.Decoder(Brief)
_file = msgspec.json.Decoder(FileEntry)
_spec = msgspec.json.Decoder(RunSpec)
_error = msgspec.json.Decoder(RunError)
_segments = msgspec.json.Decoder(list[Segment])


def encode(value: Any) -> str:
    """Any model or plain value as JSON text, the same text for the same value."""
    return _json.encode(value).decode()


def encode_events(events: Sequence[NewEvent]) -> str:
    """Events as the JSON array that the emit script wraps into a batch."""
    return encode(events)


def decode_batch(text: str) -> list[Event]:
    """The numbered events of one published message or one `b` field of a stream entry."""
    return _batch.decode(text).numbered()


def decode_entries(reply: Reply) -> list[Event]:
    """The events of an XRANGE reply: entries of `[id, [field, value]]`."""
    events: list[Event] = []
    for entry in items(reply):
        _, fields = items(entry)
        events.extend(decode_batch(str(items(fields)[1])))
    return events


def items(reply: Reply) -> list[Reply]:
    """The items of a reply that must be a list."""
    if not isinstance(reply, list):
        raise TypeError(f"expected a list from Redis, got {type(reply).__name__}")
    return reply


def pairs(reply: Reply) -> dict[str, str]:
    """A flat reply of keys and values as a dict; a key that stands twice has its last value."""
    flat = [str(item) for item in items(reply)]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def decode_journal(fields: Mapping[str, str]) -> dict[str, bytes]:
    """The journal entries among the fields of a run's hash."""
    return {
        name.removeprefix(JOURNAL_PREFIX): value.encode()
        for name, value in fields.items()
        if name.startswith(JOURNAL_PREFIX)
    }


def decode_files(fields: Mapping[str, str]) -> dict[str, FileEntry]:
    """The files among the fields of a run's hash, by path."""
    return {
        name.removeprefix(FILE_PREFIX): decode_file(value)
        for name, value in fields.items()
        if name.startswith(FILE_PREFIX)
    }


def decode_attempts(fields: Mapping[str, str]) -> list[Attempt]:
    """The claims of a run, oldest first: each begins in the field `attempt:{fence}` and ends in one named after it."""
    begun = {name: value for name, value in fields.items() if not name.endswith(_END)}
    attempts = []
    for name, value in begun.items():
        known = {"fence": int(name.removeprefix(ATTEMPT_PREFIX)), **msgspec.json.decode(value)}
        attempts.append(msgspec.convert(known | msgspec.json.decode(fields.get(name + _END, "{}")), Attempt))
    return sorted(attempts, key=lambda attempt: attempt.fence)


def decode_file(text: str) -> FileEntry:
    """One file of a run's hash."""
    return _file.decode(text)


def encode_kept(writes: Writes) -> list[str]:
    """Fields of a run's hash and their values in turn; an empty value takes the field away."""
    pairs = [(f"{JOURNAL_PREFIX}{key}", value) for key, value in writes.journal.items()]
    pairs += [(f"{FILE_PREFIX}{path}", encode(entry) if entry else "") for path, entry in writes.files.items()]
    return [part for pair in pairs for part in pair]


def decode_head(fields: Mapping[str, str | None]) -> RunHead:
    """A run without what can be large, from the fields of its hash."""
    return RunHead(**_head(fields))


def decode_log(fields: Mapping[str, str | None]) -> RunLog:
    """A run and what of its log is in the archive, from the fields of its hash."""
    return RunLog(**_head(fields), segments=decode_segments(fields.get("segments")))


def decode_segments(text: str | None) -> list[Segment]:
    """What of a log is in the archive; nothing if the record does not say."""
    return _segments.decode(text) if text else []


def decode_record(fields: Mapping[str, str | None]) -> RunRecord:
    """The record of a run from the fields of its hash."""
    result = fields.get("result")
    return RunRecord(
        **_head(fields),
        spec=_spec.decode(fields["spec"] or ""),
        fence=_number(fields, "fence") or 0,
        worker=fields.get("worker") or None,
        result=msgspec.json.decode(result) if result else None,
        user_input=fields.get("input") or None,
    )


def decode_claim(fields: Mapping[str, str]) -> Claim:
    """A granted run from all the fields of its hash. Raises DecodeError, LookupError or ValueError."""
    return Claim(
        run=decode_record(fields),
        journal=decode_journal(fields),
        files=decode_files(fields),
        segments=decode_segments(fields.get("segments")),
    )


def named(values: Reply, names: Iterable[str]) -> dict[str, str | None] | None:
    """The fields of an HMGET reply that asked for `names`; None if there is no such run."""
    fields = {name: None if value is None else str(value) for name, value in zip(names, items(values), strict=True)}
    return fields if fields["id"] else None


def _head(fields: Mapping[str, str | None]) -> dict[str, Any]:
    error = fields.get("error")
    return {
        "id": fields["id"] or "",
        "user": fields["user"] or "",
        "status": Status(fields["status"] or ""),
        "brief": _brief.decode(fields["brief"] or ""),
        "attempt": _number(fields, "attempt") or 0,
        "seq": _number(fields, "seq") or 0,
        "cancel": fields.get("cancel") == "1",
        "created_ms": _number(fields, "created_ms") or 0,
        "queued_ms": _number(fields, "queued_ms"),
        "started_ms": _number(fields, "started_ms"),
        "finished_ms": _number(fields, "finished_ms"),
        "error": _error.decode(error) if error else None,
        "condemned": fields.get("condemned") is not None,
    }


def _number(fields: Mapping[str, str | None], name: str) -> int | None:
    text = fields.get(name)
    return int(text) if text else None
