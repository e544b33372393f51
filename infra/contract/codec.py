"""Between what Redis holds (text) and the models: the one place that knows the encoding of a record and of a batch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from infra.contract.models import Batch, Event, NewEvent, RunError, RunRecord, RunSpec
from infra.contract.ports import Reply
from infra.contract.states import Status

RECORD_FIELDS = (
    "id",
    "user",
    "status",
    "spec",
    "attempt",
    "fence",
    "seq",
    "cancel",
    "worker",
    "created_ms",
    "queued_ms",
    "started_ms",
    "finished_ms",
    "result",
    "error",
    "input",
)
JOURNAL_PREFIX = "journal:"

_json = msgspec.json.Encoder(order="deterministic")
_batch = msgspec.json.Decoder(Batch)
_spec = msgspec.json.Decoder(RunSpec)
_error = msgspec.json.Decoder(RunError)


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


def decode_record(fields: Mapping[str, str | None]) -> RunRecord:
    """The record of a run from the fields of its hash."""

    def number(name: str) -> int | None:
        text = fields.get(name)
        return int(text) if text else None

    result, error = fields.get("result"), fields.get("error")
    return RunRecord(
        id=fields["id"] or "",
        user=fields["user"] or "",
        status=Status(fields["status"] or ""),
        spec=_spec.decode(fields["spec"] or ""),
        attempt=number("attempt") or 0,
        fence=number("fence") or 0,
        seq=number("seq") or 0,
        cancel=fields.get("cancel") == "1",
        worker=fields.get("worker") or None,
        created_ms=number("created_ms") or 0,
        queued_ms=number("queued_ms"),
        started_ms=number("started_ms"),
        finished_ms=number("finished_ms"),
        result=msgspec.json.decode(result) if result else None,
        error=_error.decode(error) if error else None,
        user_input=fields.get("input") or None,
    )


def decode_named(values: Reply, names: Iterable[str] = RECORD_FIELDS) -> RunRecord | None:
    """The record from an HMGET reply in the order of `names`; None if there is no such run."""
    fields = {name: None if value is None else str(value) for name, value in zip(names, items(values), strict=True)}
    return decode_record(fields) if fields["id"] else None
