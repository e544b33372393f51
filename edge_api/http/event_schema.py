"""`/events.schema.json`: the JSON Schema of a log event, built from the types with which the workers log."""

from typing import Any

import msgspec

from edge_api.http.response_models import LogEvent
from infra.contract.event_sizing import MAX_EVENT_BYTES
from infra.contract.events import EVENTS

REF = "#/$defs/{name}"


def build() -> bytes:
    """Return the schema as JSON: one branch for each event type, and one for the types of later releases."""
    data, definitions = msgspec.json.schema_components(EVENTS.values(), ref_template=REF)
    branches = [_branch(name, schema) for name, schema in zip(EVENTS, data, strict=True)]
    event = msgspec.json.schema_components([LogEvent])[1]["LogEvent"]
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **event,
        "description": f"{event['description']} Its JSON has at most {MAX_EVENT_BYTES} bytes.",
        "required": list(event["properties"]),
        "oneOf": [*branches, _unknown_type()],
        "$defs": definitions,
    }
    return msgspec.json.encode(document)


def _branch(name: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"title": name, "properties": {"type": {"const": name}, "data": data}}


def _unknown_type() -> dict[str, Any]:
    return {
        "title": "of a later release",
        "description": "Clients ignore event types that they do not know.",
        "properties": {"type": {"not": {"enum": list(EVENTS)}}},
    }
