"""`/events.schema.json`, and the page of the documentation that describes the same types."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest

from edge_api.http import event_schema
from infra.contract.event_sizing import MAX_EVENT_BYTES
from infra.contract.events import EVENTS
from tests.edge.stack import Edge, SimulatedWorker, client, create
from tests.support.events import validator

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "events.md").read_text()
SCHEMA: dict[str, Any] = msgspec.json.decode(event_schema.build())
DEFINITIONS: Mapping[str, Any] = SCHEMA["$defs"]
KINDS = {
    "string": "text",
    "integer": "number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "array": "list",
}


def logged(kind: str, **data: Any) -> dict[str, Any]:
    return {"seq": 1, "ts": 1, "type": kind, "step": None, "data": data}


async def test_the_event_schema_is_served_to_every_token(edge: Edge, ada: httpx.AsyncClient) -> None:
    answer = await ada.get("/events.schema.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == SCHEMA
    async with client(edge, "reader") as reader, client(edge, None) as stranger:
        assert (await reader.get("/events.schema.json")).status_code == 200
        assert (await stranger.get("/events.schema.json")).status_code == 401


async def test_the_openapi_document_has_the_data_of_each_type(ada: httpx.AsyncClient) -> None:
    described = (await ada.get("/openapi.json")).json()
    assert list(described["x-events"]) == list(EVENTS)
    for name, reference in described["x-events"].items():
        found = described["components"]["schemas"][reference["$ref"].rpartition("/")[2]]
        assert found["properties"].keys() == DEFINITIONS[EVENTS[name].__name__]["properties"].keys()


async def test_events_of_the_api_match_the_schema(ada: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    run_id = await create(ada)
    await worker.complete(events=0)
    page = (await ada.get(f"/agent/logs/{run_id}")).json()
    assert [event["type"] for event in page["events"]] == ["run.started", "run.finished"]
    for event in page["events"]:
        validator().validate(event)


@pytest.mark.parametrize(
    "event",
    [
        logged("of.a.later.release"),
        logged("of.a.later.release", anything=[1]),
        logged("message", text="x", of_a_later_release={"x": 1}),
        {**logged("message", text="x"), "of_a_later_release": 1},
        logged("run.finished", status="failed", error={"code": "x", "message": "y"}),
        logged("run.finished", status="failed", error={"code": "x", "message": "y", "step": None}),
        logged("run.waiting", question="x", requests=[]),
    ],
)
def test_the_schema_accepts_valid_events(event: dict[str, Any]) -> None:
    validator().validate(event)


@pytest.mark.parametrize(
    "event",
    [
        logged("message"),
        logged("message", text=1),
        logged("message", text="x", more="yes"),
        logged("run.finished", status="running"),
        logged("run.finished", status="failed", error={"code": "x"}),
        logged("tool.output", stream="stdin", text="x"),
        logged("plan.created", steps=[{"tool": "x"}]),
        {**logged("of.a.later.release"), "data": []},
        {**logged("message", text="x"), "seq": "1"},
        {**logged("message", text="x"), "type": None},
        {name: value for name, value in logged("message", text="x").items() if name != "step"},
    ],
)
def test_the_schema_rejects_invalid_events(event: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(event)


def fields(kind: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Return the rows of a type's table of fields. Fields of nested objects are named by their path."""
    for name, schema in kind["properties"].items():
        inner = DEFINITIONS.get(schema.get("$ref", schema.get("items", {}).get("$ref", "")).rpartition("/")[2])
        form = schema.get("enum") or next(iter(schema.get("anyOf", [])), schema).get("type") or "object"
        said = KINDS[form] if isinstance(form, str) else ", ".join(f"`{value}`" for value in form)
        needed = "" if name in kind["required"] else ", optional"
        meaning = schema.get("description") or (inner or {}).get("description", "")
        yield f"| `{prefix}{name}` | {said}{needed} | {meaning} |"
        if inner:
            yield from fields(inner, f"{prefix}{name}{'[]' if form == 'array' else ''}.")


@pytest.mark.parametrize("name", EVENTS)
def test_the_documentation_of_a_type_matches_the_schema(name: str) -> None:
    _, found, rest = DOCS.partition(f"\n### `{name}`\n\n")
    assert found, f"there is no section on {name}"
    section = re.split(r"\n##", rest)[0]
    kind = DEFINITIONS[EVENTS[name].__name__]
    assert section.startswith(f"{kind['description']}\n")
    assert [line for line in section.splitlines() if line.startswith("| `")] == list(fields(kind))
    examples = re.findall(r"```json\n(.*?)\n```", section, re.DOTALL)
    assert examples
    for example in examples:
        for line in example.splitlines():
            event = msgspec.json.decode(line)
            assert event["type"] == name
            validator().validate(event)


def test_the_documentation_has_no_other_types() -> None:
    assert re.findall(r"^### `(.*)`$", DOCS, re.MULTILINE) == list(EVENTS)
    assert f"{MAX_EVENT_BYTES:,} bytes" in DOCS
