"""Checks for any event: known type, valid by its schema, within the size limit."""

from functools import cache
from typing import Any

import msgspec
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from edge_api.http import event_schema
from edge_api.http.response_models import LogEvent
from infra.contract.event_sizing import MAX_EVENT_BYTES
from infra.contract.events import EVENTS
from infra.contract.log import Event


@cache
def validator() -> Any:
    """Return the validator of the schema that the API serves."""
    schema = msgspec.json.decode(event_schema.build())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check(event: Event) -> None:
    """Raise if the event, as the API serves it, is invalid."""
    served = msgspec.json.encode(LogEvent.of(event))
    assert event.type in EVENTS
    assert len(served) <= MAX_EVENT_BYTES
    validator().validate(msgspec.json.decode(served))
