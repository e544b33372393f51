"""The client's types say what the API's own description says, and go on when that grows."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from edge_api.http import response_models as schemas
from infra.contract.runs import PlanStep as TakenStep
from infra.contract.states import Status
from swissbrain import Client, models
from swissbrain.models import PlanStep, Run
from swissbrain.terminal import STYLES
from tests.client import stand_in
from tests.support.openapi import openapi_document

DOCUMENT = openapi_document()
ANSWERS = [
    ("POST", "/agent/runs", 200, models.Run),
    ("POST", "/agent/runs", 201, models.Run),
    ("GET", "/agent/runs", 200, models.RunPage),
    ("GET", "/agent/runs/{run_id}", 200, models.Run),
    ("POST", "/agent/runs/{run_id}/start", 200, models.RunState),
    ("POST", "/agent/runs/{run_id}/cancel", 200, models.RunState),
    ("POST", "/agent/runs/{run_id}/retry", 200, models.RunState),
    ("POST", "/agent/runs/{run_id}/resume", 200, models.RunState),
    ("GET", "/agent/logs/{run_id}", 200, models.LogPage),
    ("POST", "/agent/runs/{run_id}/stream-token", 201, models.StreamToken),
    ("GET", "/agent/runs/{run_id}/files", 200, models.FileList),
    ("GET", "/agent/queue", 200, models.QueueDepths),
]
Schema = Mapping[str, Any]


class Described:
    """A JSON schema with the schemas that it refers to."""

    def __init__(self, schema: Schema, known: Mapping[str, Schema]) -> None:
        while "$ref" in schema:
            schema = known[schema["$ref"].rpartition("/")[2]]
        self.schema = schema
        self._known = known

    @classmethod
    def of(cls, kind: object) -> "Described":
        ((schema,), known) = msgspec.json.schema_components([kind])
        return cls(schema, known)

    def part(self, schema: Schema) -> "Described":
        return Described(schema, self._known)

    def alternatives(self) -> Iterator["Described"]:
        if "anyOf" in self.schema:
            for each in self.schema["anyOf"]:
                yield from self.part(each).alternatives()
        else:
            yield self

    @property
    def type(self) -> str:
        if "enum" in self.schema:
            (name,) = {type(value).__name__ for value in self.schema["enum"]}
            return {"str": "string", "int": "integer"}[name]
        return str(self.schema["type"])


def misfits(said: Described, taken: Described, at: str = "$") -> Iterator[str]:
    """Where a value that is as `said` would not be one that is `taken`; or where `taken` has what is not said."""
    if not taken.schema.keys() - {"title", "description", "default"}:
        return
    for one in said.alternatives():
        if one.schema.keys() - {"title", "description", "default"}:
            tries = [[*_misfits(one, other, at)] for other in taken.alternatives()]
            yield from min(tries, key=len)
        else:
            yield f"{at} may be anything"


def _misfits(said: Described, taken: Described, at: str) -> Iterator[str]:
    if (said.type, taken.type) == ("integer", "number"):
        return
    if said.type != taken.type or ("enum" in taken.schema and "enum" not in said.schema):
        yield f"{at} is {said.type}, not {taken.type}"
    elif said.type == "array":
        yield from misfits(said.part(said.schema["items"]), taken.part(taken.schema["items"]), f"{at}[]")
    elif said.type == "object":
        yield from _misfits_of_fields(said, taken, at)
        yield from _misfits_of_the_rest(said, taken, at)


def _misfits_of_fields(said: Described, taken: Described, at: str) -> Iterator[str]:
    properties = said.schema.get("properties", {})
    for name, schema in taken.schema.get("properties", {}).items():
        if name not in properties:
            yield f"{at}.{name} is not there"
        elif name in taken.schema.get("required", ()) and name not in said.schema.get("required", ()):
            yield f"{at}.{name} may be left out"
        else:
            yield from misfits(said.part(properties[name]), taken.part(schema), f"{at}.{name}")


def _misfits_of_the_rest(said: Described, taken: Described, at: str) -> Iterator[str]:
    properties = said.schema.get("properties", {})
    rest = taken.schema.get("additionalProperties", True)
    more = said.schema.get("additionalProperties", False if properties else {})
    if rest is False:
        yield f"{at} may grow"
    elif isinstance(rest, dict):
        for value in [*properties.values(), *([more] if isinstance(more, dict) else [])]:
            yield from misfits(said.part(value), taken.part(rest), f"{at}.*")


@pytest.mark.parametrize(("method", "path", "status", "model"), ANSWERS)
def test_the_answers_are_as_described(method: str, path: str, status: int, model: type[msgspec.Struct]) -> None:
    described = DOCUMENT["paths"][path][method.lower()]["responses"][str(status)]["content"]["application/json"][
        "schema"
    ]
    said = Described(described, DOCUMENT["components"]["schemas"])
    assert [*misfits(said, Described.of(model))] == []


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (schemas.LogEvent, models.Event),
        (schemas.Gap, models.Gap),
        (schemas.StreamEnd, models.End),
        (schemas.Problem, models.Problem),
        (schemas.Links, dict[str, str]),
    ],
)
def test_so_is_what_streams_and_errors_hold(said: object, taken: object) -> None:
    assert [*misfits(Described.of(said), Described.of(taken))] == []


def test_what_is_sent_is_taken() -> None:
    fields = DOCUMENT["components"]["schemas"]["CreateRun"]["properties"].keys()
    assert inspect.signature(Client.create_run).parameters.keys() - {"self", "idempotency_key"} <= fields
    assert [*misfits(Described.of(models.PlanStep), Described.of(TakenStep))] == ["$ may grow"]
    assert {*models.TERMINAL, *STYLES} <= {*Described.of(Status).schema["enum"]}
    status = DOCUMENT["components"]["schemas"]["ResumeRun"]
    assert status["required"] == ["user_input"]


def test_the_comparison_finds_what_does_not_fit() -> None:
    class Said(msgspec.Struct):
        a: int | None
        b: list[str]
        c: dict[str, int]
        d: int = 1

    class Taken(msgspec.Struct):
        a: int
        b: list[int]
        c: dict[str, str]
        d: int
        e: str

    assert [*misfits(Described.of(Said), Described.of(Taken))] == [
        "$.a is null, not integer",
        "$.b[] is string, not integer",
        "$.c.* is integer, not string",
        "$.d may be left out",
        "$.e is not there",
    ]
    assert [*misfits(Described.of(Said), Described.of(Said))] == []


def test_a_later_release_may_say_more() -> None:
    step = {"tool": "t" * 100, "args": {}, "new": 1}
    later = stand_in.run(plan=[step], status="paused", error={"code": "c", "message": "m", "new": [1]})
    run = msgspec.convert(later, Run)
    assert run.plan == [PlanStep(tool="t" * 100)]
    assert (run.status, run.ended) == ("paused", False)
    page = {
        "events": [{"seq": 1, "ts": 1, "type": "x", "new": 1}],
        "next_after": 1,
        "done": True,
        "gap": {"first": 1, "last": 1, "x": 1},
    }
    msgspec.convert(page, models.LogPage)
