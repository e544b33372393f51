"""The client's types say what the API's own description says, and go on when that grows."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

import msgspec
import pytest

from edge_api.http import openapi
from edge_api.http import response_models as schemas
from edge_api.settings import ApiSettings
from infra.contract import log, queue, runs
from infra.contract.runs import PlanStep as TakenStep
from infra.contract.states import Status
from swissbrain import Client, models
from swissbrain.cli.terminal import STYLES
from swissbrain.models import PlanStep, Run
from tests.client import stand_in

DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi.build(ApiSettings()))
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
    ("GET", "/agent/runs/{run_id}/attempts", 200, models.AttemptList),
    ("POST", "/agent/runs/{run_id}/fork", 201, models.Run),
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


EVERY_FIELD = {
    models.Event: {"seq": 1, "ts": 2, "type": "log", "step": 0, "data": {"a": [1]}},
    models.RunError: {"code": "c", "message": "m", "step": 1},
    models.Attempt: {"fence": 1, "attempt": 2, "worker": "w", "started_ms": 3, "ended_ms": 4, "outcome": "drained"},
    models.QueueDepths: {"pending": 1, "ready": 2, "delayed": 3, "running": 4, "dead": 5},
    models.PlanStep: {"tool": "t", "args": {"a": None}, "timeout_s": 1.5, "name": "n"},
}


@pytest.mark.parametrize(
    ("own", "contract"),
    [
        (models.Event, log.Event),
        (models.RunError, runs.RunError),
        (models.Attempt, runs.Attempt),
        (models.QueueDepths, queue.QueueDepths),
        (models.PlanStep, runs.PlanStep),
    ],
)
def test_types_of_the_client_equal_those_of_the_contract(
    own: type[msgspec.Struct], contract: type[msgspec.Struct]
) -> None:
    assert fields_of(own) == fields_of(contract)
    every = EVERY_FIELD[own]
    assert every.keys() == {*own.__struct_fields__}
    required = {name: every[name] for name, (_, default) in fields_of(own).items() if default is msgspec.NODEFAULT}
    for values in (every, required):
        text = msgspec.json.encode(msgspec.convert(values, contract))
        assert msgspec.json.encode(msgspec.json.decode(text, type=own)) == text
        assert msgspec.json.decode(msgspec.json.encode(msgspec.convert(values, own)), type=contract) == (
            msgspec.convert(values, contract)
        )


def fields_of(struct: type[msgspec.Struct]) -> dict[str, tuple[Any, Any]]:
    """Return the type, without its constraints, and the default of each field."""
    types = get_type_hints(struct)  # removes Annotated, which holds the constraints
    return {field.encode_name: (types[field.name], _default(field)) for field in msgspec.structs.fields(struct)}


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


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
