"""Types of the client: equal to the API description and to the contract, and open to later releases."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_origin, get_type_hints

import msgspec
import pytest

from edge_api.http import response_models as schemas
from infra.contract import agent, journal, log, queue, runs
from infra.contract.runs import PlanStep as ContractStep
from infra.contract.states import Status
from swissbrain import (
    AgentOptions,
    ApprovalRule,
    CallOutcome,
    Client,
    Limits,
    NewRun,
    UsageReport,
    models,
    pages,
    schedules,
)
from swissbrain.cli.screen import STYLES
from swissbrain.models import PlanStep, Run
from tests.client import scripted_server
from tests.support.openapi import openapi_document

DOCUMENT = openapi_document()
ANSWERS = [
    ("POST", "/agent/runs", 200, models.Run),
    ("POST", "/agent/runs", 201, models.Run),
    ("POST", "/agent/runs/batch", 200, pages.BatchResults),
    ("GET", "/agent/runs", 200, pages.RunPage),
    ("GET", "/agent/runs/{run_id}", 200, models.Run),
    ("POST", "/agent/runs/{run_id}/start", 200, models.RunState),
    ("POST", "/agent/runs/{run_id}/cancel", 200, models.RunState),
    ("POST", "/agent/runs/{run_id}/retry", 200, models.RunState),
    ("POST", "/agent/runs/{run_id}/resume", 200, models.RunState),
    ("POST", "/agent/runs/{run_id}/messages", 200, models.RunState),
    ("POST", "/agent/runs/{run_id}/interrupt", 200, models.RunState),
    ("GET", "/agent/logs/{run_id}", 200, pages.LogPage),
    ("POST", "/agent/runs/{run_id}/stream-token", 201, models.StreamToken),
    ("GET", "/agent/runs/{run_id}/files", 200, pages.FileList),
    ("GET", "/agent/runs/{run_id}/files/{path}", 200, models.FileLink),
    ("GET", "/agent/runs/{run_id}/attempts", 200, pages.AttemptList),
    ("POST", "/agent/runs/{run_id}/fork", 201, models.Run),
    ("PUT", "/agent/runs/{run_id}/files/{path}", 200, models.InputFile),
    ("GET", "/agent/runs/{run_id}/steps", 200, pages.StepList),
    ("GET", "/agent/runs/{run_id}/steps/{index}", 200, models.StepRecord),
    ("GET", "/agent/usage", 200, UsageReport),
    ("GET", "/agent/queue", 200, models.QueueDepths),
    ("GET", "/agent/whoami", 200, models.Identity),
    ("POST", "/agent/schedules", 201, schedules.Schedule),
    ("GET", "/agent/schedules", 200, schedules.ScheduleList),
    ("GET", "/agent/schedules/{schedule_id}", 200, schedules.Schedule),
    ("PATCH", "/agent/schedules/{schedule_id}", 200, schedules.Schedule),
    ("POST", "/agent/schedules/{schedule_id}/run-now", 200, schedules.TickResult),
]
Schema = Mapping[str, Any]


class Described:
    """JSON schema with the schemas that it refers to."""

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


def mismatches(sent: Described, accepted: Described, at: str = "$") -> Iterator[str]:
    """Yield the places where a value of the schema `sent` would not be valid for the schema `accepted`."""
    if not accepted.schema.keys() - {"title", "description", "default"}:
        return
    for one in sent.alternatives():
        if one.schema.keys() - {"title", "description", "default"}:
            tries = [[*_mismatches(one, other, at)] for other in accepted.alternatives()]
            yield from min(tries, key=len)
        else:
            yield f"{at} may be anything"


def _mismatches(sent: Described, accepted: Described, at: str) -> Iterator[str]:
    if (sent.type, accepted.type) == ("integer", "number"):
        return
    if sent.type != accepted.type or ("enum" in accepted.schema and "enum" not in sent.schema):
        yield f"{at} is {sent.type}, not {accepted.type}"
    elif sent.type == "array":
        yield from mismatches(sent.part(sent.schema["items"]), accepted.part(accepted.schema["items"]), f"{at}[]")
    elif sent.type == "object":
        yield from _mismatches_of_fields(sent, accepted, at)
        yield from _mismatches_of_other_fields(sent, accepted, at)


def _mismatches_of_fields(sent: Described, accepted: Described, at: str) -> Iterator[str]:
    properties = sent.schema.get("properties", {})
    for name, schema in accepted.schema.get("properties", {}).items():
        if name not in properties:
            yield f"{at}.{name} is not there"
        elif name in accepted.schema.get("required", ()) and name not in sent.schema.get("required", ()):
            yield f"{at}.{name} may be left out"
        else:
            yield from mismatches(sent.part(properties[name]), accepted.part(schema), f"{at}.{name}")


def _mismatches_of_other_fields(sent: Described, accepted: Described, at: str) -> Iterator[str]:
    properties = sent.schema.get("properties", {})
    rest = accepted.schema.get("additionalProperties", True)
    more = sent.schema.get("additionalProperties", False if properties else {})
    if rest is False:
        yield f"{at} may grow"
    elif isinstance(rest, dict):
        for value in [*properties.values(), *([more] if isinstance(more, dict) else [])]:
            yield from mismatches(sent.part(value), accepted.part(rest), f"{at}.*")


@pytest.mark.parametrize(("method", "path", "status", "model"), ANSWERS)
def test_responses_in_the_openapi_document_fit_the_client_types(
    method: str, path: str, status: int, model: type[msgspec.Struct]
) -> None:
    described = DOCUMENT["paths"][path][method.lower()]["responses"][str(status)]["content"]["application/json"][
        "schema"
    ]
    sent = Described(described, DOCUMENT["components"]["schemas"])
    assert [*mismatches(sent, Described.of(model))] == []


@pytest.mark.parametrize(
    ("sent", "accepted"),
    [
        (schemas.LogEvent, models.Event),
        (schemas.Gap, models.Gap),
        (schemas.StreamEnd, models.End),
        (schemas.Skipped, models.Skipped),
        (schemas.Problem, models.Problem),
        (schemas.Links, dict[str, str]),
    ],
)
def test_events_and_errors_of_the_api_fit_the_client_types(sent: object, accepted: object) -> None:
    assert [*mismatches(Described.of(sent), Described.of(accepted))] == []


def test_requests_of_the_client_fit_the_openapi_document() -> None:
    fields = DOCUMENT["components"]["schemas"]["CreateRun"]["properties"].keys()
    arguments = inspect.signature(Client.create_run).parameters.keys() - {"self", "idempotency_key", "agent"}
    assert {*arguments, *AgentOptions.__annotations__} <= fields
    assert fields - {"fork_of"} == {*NewRun.__struct_fields__} - {"idempotency_key"}
    assert [*mismatches(Described.of(models.PlanStep), Described.of(ContractStep))] == ["$ may grow"]
    assert {*models.TERMINAL, *STYLES} <= {*Described.of(Status).schema["enum"]}


EVERY_FIELD: dict[type[msgspec.Struct], dict[str, Any]] = {
    models.Event: {"seq": 1, "ts": 2, "type": "log", "step": 0, "data": {"a": [1]}},
    models.RunError: {"code": "c", "message": "m", "step": 1},
    models.Attempt: {"fence": 1, "attempt": 2, "worker": "w", "started_ms": 3, "ended_ms": 4, "outcome": "drained"},
    models.QueueDepths: {
        "pending": 1,
        "ready": 2,
        "delayed": 3,
        "running": 4,
        "dead": 5,
        "unreadable": 6,
        "waiting": 7,
        "workers": 8,
    },
    models.Identity: {"user": "u", "scopes": ["runs:read"]},
    models.PlanStep: {"tool": "t", "args": {"a": None}, "timeout_s": 1.5, "name": "n"},
    ApprovalRule: {"tool": "t", "policy": "ask", "match": {"a": "b*"}, "expires_s": 1.5, "on_expiry": "fail"},
    Limits: {
        "turns": 1,
        "tool_calls": 2,
        "input_tokens": 3,
        "output_tokens": 4,
        "cost": 0.5,
        "wall_s": 60.0,
        "repeats": 5,
    },
    CallOutcome: {
        "tool": "shell",
        "status": "failed",
        "text": "exit code 1",
        "step": 2,
        "started_ms": 5,
        "duration_ms": 7,
        "code": "exit_code",
        "message": "the program exited with 1",
        "result": {"exit_code": 1},
    },
}


@pytest.mark.parametrize(
    ("own", "contract"),
    [
        (models.Event, log.Event),
        (models.RunError, runs.RunError),
        (models.Attempt, runs.Attempt),
        (models.QueueDepths, queue.QueueDepths),
        (models.PlanStep, runs.PlanStep),
        (Limits, agent.Limits),
        (ApprovalRule, agent.ApprovalRule),
        (CallOutcome, journal.CallOutcome),
    ],
)
def test_types_of_the_client_equal_the_types_of_the_contract(
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
    """Return the type, without its constraints, and the default of each field; a Literal, which may grow, is text."""
    types = get_type_hints(struct)  # removes Annotated, which holds the constraints
    kinds = {name: str if get_origin(kind) is Literal else kind for name, kind in types.items()}
    return {field.encode_name: (kinds[field.name], _default(field)) for field in msgspec.structs.fields(struct)}


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def test_the_comparison_finds_every_mismatch() -> None:
    class Sent(msgspec.Struct):
        a: int | None
        b: list[str]
        c: dict[str, int]
        d: int = 1

    class Accepted(msgspec.Struct):
        a: int
        b: list[int]
        c: dict[str, str]
        d: int
        e: str

    assert [*mismatches(Described.of(Sent), Described.of(Accepted))] == [
        "$.a is null, not integer",
        "$.b[] is string, not integer",
        "$.c.* is integer, not string",
        "$.d may be left out",
        "$.e is not there",
    ]
    assert [*mismatches(Described.of(Sent), Described.of(Sent))] == []


def test_fields_of_later_releases_are_ignored() -> None:
    step = {"tool": "t" * 100, "args": {}, "new": 1}
    later = scripted_server.run(plan=[step], status="paused", error={"code": "c", "message": "m", "new": [1]})
    run = msgspec.convert(later, Run)
    assert run.plan == [PlanStep(tool="t" * 100)]
    assert (run.status, run.ended) == ("paused", False)
    page = {
        "events": [{"seq": 1, "ts": 1, "type": "x", "new": 1}],
        "next_after": 1,
        "done": True,
        "gap": {"first": 1, "last": 1, "x": 1},
    }
    msgspec.convert(page, pages.LogPage)
