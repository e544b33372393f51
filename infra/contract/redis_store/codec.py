"""Encoding of records, batches and journal entries as the text that Redis holds: the only place that knows it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from infra.contract import journal
from infra.contract.agent import Limits
from infra.contract.files import FILE_PREFIX, FileEntry, FolderEntry, Input, Inputs
from infra.contract.log import Batch, Event, NewEvent, RunLog, Segment
from infra.contract.queue import Claim, Writes
from infra.contract.redis import Reply
from infra.contract.redis_store import usage_sums
from infra.contract.requests import OpenRequest, StoredAnswer, UserMessage, Waiting
from infra.contract.runs import Attempt, Brief, RunError, RunHead, RunRecord, RunSpec
from infra.contract.states import Outcome, Status

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
    "worked_ms",
    "error",
    "condemned",
    "requests",
    "waiting_ms",
    "usage",
)
LOG_FIELDS = (*HEAD_FIELDS, "segments")
RECORD_FIELDS = (
    *HEAD_FIELDS,
    "spec",
    "fence",
    "worker",
    "result",
    "answers",
    "interrupt",
    "unable",
    "limits",
    "traceparent",
)
INPUT_FIELDS = ("id", "inputs", "inputs_version")
FOLDER_PREFIX = "dir:"
ATTEMPT_PREFIX = "attempt:"
MESSAGE_PREFIX = "message:"
_END = ":end"

_json = msgspec.json.Encoder(order="deterministic")
_batch = msgspec.json.Decoder(Batch)
_brief = msgspec.json.Decoder(Brief)
_answers = msgspec.json.Decoder(dict[str, StoredAnswer])
_request = msgspec.json.Decoder(OpenRequest)
_message = msgspec.json.Decoder(UserMessage)
_texts = msgspec.json.Decoder(list[str])
_file = msgspec.json.Decoder(FileEntry)
_input = msgspec.json.Decoder(Input)
_inputs = msgspec.json.Decoder(dict[str, str])
_folder = msgspec.json.Decoder(FolderEntry)
_limits = msgspec.json.Decoder(Limits)
_numbers = msgspec.json.Decoder(dict[str, int])
_spec = msgspec.json.Decoder(RunSpec)
_error = msgspec.json.Decoder(RunError)
_segments = msgspec.json.Decoder(list[Segment])


def encode(value: Any) -> str:
    """Return a model or plain value as JSON text; equal values give equal text."""
    return _json.encode(value).decode()


def encode_events(events: Sequence[NewEvent]) -> str:
    """Return events as the JSON array that the scripts wrap into a batch."""
    return encode(events)


def decode_batch(text: str) -> list[Event]:
    """Return the numbered events of one published message, or of the field `b` of one stream entry."""
    return _batch.decode(text).numbered()


def decode_entries(reply: Reply) -> list[Event]:
    """Return the events of an XRANGE reply, whose entries are `[id, [field, value]]`."""
    events: list[Event] = []
    for entry in items(reply):
        _, fields = items(entry)
        events.extend(decode_batch(str(items(fields)[1])))
    return events


def items(reply: Reply) -> list[Reply]:
    """Return the items of a reply. Raises TypeError if it is not a list."""
    if not isinstance(reply, list):
        raise TypeError(f"expected a list from Redis, got {type(reply).__name__}")
    return reply


def pairs(reply: Reply) -> dict[str, str]:
    """Return a flat reply of keys and values as a dict; the last value of a repeated key wins."""
    flat = [str(item) for item in items(reply)]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def decode_journal(fields: Mapping[str, str]) -> dict[str, bytes]:
    """Return the journal entries among the fields of a run's hash."""
    return {
        name.removeprefix(journal.FIELD_PREFIX): value.encode()
        for name, value in fields.items()
        if name.startswith(journal.FIELD_PREFIX)
    }


def decode_files(fields: Mapping[str, str]) -> dict[str, FileEntry]:
    """Return the files among the fields of a run's hash, by path."""
    return {
        name.removeprefix(FILE_PREFIX): decode_file(value)
        for name, value in fields.items()
        if name.startswith(FILE_PREFIX)
    }


def decode_folders(fields: Mapping[str, str]) -> dict[str, FolderEntry]:
    """Return the folders among the fields of a run's hash, by path."""
    return {
        name.removeprefix(FOLDER_PREFIX): _folder.decode(value)
        for name, value in fields.items()
        if name.startswith(FOLDER_PREFIX)
    }


def decode_attempts(fields: Mapping[str, str]) -> list[Attempt]:
    """Return the claims of a run, oldest first, from its fields `attempt:{fence}` and `attempt:{fence}:end`."""
    begun = {name: value for name, value in fields.items() if not name.endswith(_END)}
    attempts = []
    for name, value in begun.items():
        known = {"fence": int(name.removeprefix(ATTEMPT_PREFIX)), **msgspec.json.decode(value)}
        attempts.append(msgspec.convert(known | msgspec.json.decode(fields.get(name + _END, "{}")), Attempt))
    return sorted(attempts, key=lambda attempt: attempt.fence)


def decode_messages(fields: Mapping[str, str | None]) -> list[UserMessage]:
    """Return the unread messages among the fields of a run's hash, oldest first."""
    found = []
    for name, text in fields.items():
        if name.startswith(MESSAGE_PREFIX) and text is not None:
            number = int(name.removeprefix(MESSAGE_PREFIX))
            found.append(msgspec.structs.replace(_message.decode(text), number=number))
    return sorted(found, key=lambda message: message.number)


def decode_file(text: str) -> FileEntry:
    """Return one file of a run's hash."""
    return _file.decode(text)


def decode_input(text: str) -> Input:
    """Return one input file."""
    return _input.decode(text)


def decode_inputs(fields: Mapping[str, str | None]) -> Inputs:
    """Return the input files among the fields of a run's hash."""
    texts = _inputs.decode(fields.get("inputs") or "{}")
    files = {path: decode_input(text) for path, text in texts.items()}
    return Inputs(version=_number(fields, "inputs_version") or 0, files=files)


def encode_inputs(inputs: Mapping[str, Input]) -> str:
    """Return input files as the field of a run's hash; empty for none.

    Each file is a text inside the JSON, because a script that decoded and encoded its times in ns would round them.
    """
    return encode({path: encode(file) for path, file in inputs.items()}) if inputs else ""


def encode_requests(requests: Sequence[Mapping[str, Any]]) -> str:
    """Return requests as the field of a run's hash: a list of JSON texts, which a script can remove unchanged."""
    return encode([encode(request) for request in requests])


def encode_fields(writes: Writes) -> list[str]:
    """Return hash fields and their values in turn; the scripts remove a field whose value is empty.

    A result in the journal is progress, and ends a row of workers that were unable to make any.
    """
    pairs = [(f"{journal.FIELD_PREFIX}{key}", value) for key, value in writes.journal.items()]
    pairs += [(f"{FILE_PREFIX}{path}", encode(entry) if entry else "") for path, entry in writes.files.items()]
    pairs += [(f"{FOLDER_PREFIX}{path}", encode(entry) if entry else "") for path, entry in writes.folders.items()]
    if writes.read:
        pairs.append(("read", str(max(writes.read))))
        pairs += [(f"{MESSAGE_PREFIX}{number}", "") for number in writes.read]
    if writes.journal.keys() - {journal.STARTED, journal.EXECUTION, journal.EXECUTIONS, journal.LOGGED}:
        # A value, because removing the field would cost a command of its own.
        pairs.append(("unable", "0"))
    return [part for pair in pairs for part in pair]


def decode_head(fields: Mapping[str, str | None]) -> RunHead:
    """Return a run without its large fields, from the fields of its hash."""
    return RunHead(**_head(fields))


def decode_log(fields: Mapping[str, str | None]) -> RunLog:
    """Return a run with the archived segments of its log, from the fields of its hash."""
    return RunLog(**_head(fields), segments=decode_segments(fields.get("segments")))


def decode_segments(text: str | None) -> list[Segment]:
    """Return the archived segments of a log; none if the field is missing."""
    return _segments.decode(text) if text else []


def decode_record(fields: Mapping[str, str | None]) -> RunRecord:
    """Return the record of a run from the fields of its hash."""
    result, limits = fields.get("result"), fields.get("limits")
    return RunRecord(
        **_head(fields),
        spec=_spec.decode(fields["spec"] or ""),
        fence=_number(fields, "fence") or 0,
        worker=fields.get("worker") or None,
        result=msgspec.json.decode(result) if result else None,
        answers=_answers.decode(fields.get("answers") or "{}"),
        interrupt=fields.get("interrupt") == "1",
        unable=_number(fields, "unable") or 0,
        limits=_limits.decode(limits) if limits else None,
        traceparent=fields.get("traceparent") or None,
    )


def decode_claim(fields: Mapping[str, str]) -> Claim:
    """Return a granted run from all fields of its hash. Raises DecodeError, LookupError or ValueError."""
    return Claim(
        run=decode_record(fields),
        journal=decode_journal(fields),
        files=decode_files(fields),
        folders=decode_folders(fields),
        segments=decode_segments(fields.get("segments")),
        inputs=decode_inputs(fields).files,
        messages=decode_messages(fields),
        read=_number(fields, "read") or 0,
        claimed_ms=_number(fields, "claimed_ms") or 0,
        owner=fields.get("claim", ""),
    )


def outcome(reply: Reply) -> Outcome:
    """Return the outcome with which a script's reply begins."""
    return Outcome(str(items(reply)[0]))


def outcome_and_status(reply: Reply) -> tuple[Outcome, Status | None]:
    """Return the outcome and the run's status of a script's reply; no status if there is no such run."""
    name, *rest = items(reply)
    return Outcome(str(name)), Status(str(rest[0])) if rest and rest[0] else None


def _head(fields: Mapping[str, str | None]) -> dict[str, Any]:
    error, usage = fields.get("error"), fields.get("usage")
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
        "worked_ms": _number(fields, "worked_ms"),
        "error": _error.decode(error) if error else None,
        "deleting": fields.get("condemned") is not None,
        "waiting": _waiting(fields) if fields["status"] == Status.WAITING else None,
        "usage": usage_sums.decode(_numbers.decode(usage)) if usage else None,
    }


def _waiting(fields: Mapping[str, str | None]) -> Waiting:
    texts = _texts.decode(fields.get("requests") or "[]")
    return Waiting(requests=[_request.decode(text) for text in texts], since_ms=_number(fields, "waiting_ms") or 0)


def _number(fields: Mapping[str, str | None], name: str) -> int | None:
    text = fields.get(name)
    return int(text) if text else None
