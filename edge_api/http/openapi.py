"""`/openapi.json`, made from the very types that validate requests and shape answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from edge_api.http import errors
from edge_api.http import request_models as requests
from edge_api.http import response_models as schemas
from edge_api.settings import ApiSettings
from infra.contract.events import EVENTS
from infra.contract.queue import QueueDepths
from infra.contract.tools import TOOLS

VERSION = "0.1.0"
REF = "#/components/schemas/{name}"
_RUN_ID = {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string"}}
_PATH = {
    "name": "path",
    "in": "path",
    "required": True,
    "description": "A relative path; it may hold slashes.",
    "schema": {"type": "string"},
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key and request: the same run. The same key and another request: 409.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The last sequence number already known.",
    "schema": {"type": "integer", "minimum": 0},
}

_STREAM_TOKEN = {
    "type": "apiKey",
    "in": "query",
    "name": "token",
    "description": "A stream token of the run in the path, without the header Authorization.",
}


@dataclass(frozen=True)
class Operation:
    """One operation: what it is called, what it takes, what it answers when all is well, and what it refuses.

    An answer is a type, several of them, a media type, or None for an empty one. `body_optional`: all of the body's
    fields have defaults. `stream_token`: the run's stream token will do.
    """

    name: str
    summary: str
    answers: Mapping[int, object]
    refuses: Sequence[int] = ()
    body: object = None
    body_optional: bool = False
    query: type[msgspec.Struct] | None = None
    headers: Sequence[Mapping[str, Any]] = ()
    public: bool = False
    stream_token: bool = False


_INPUT = (400, 413, 415, 422)
_MOVE = (400, 404, 409, 413, 422)

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/agent/execute"): Operation(
        "execute",
        "Create, start, stop, retry or resume a run.",
        {201: schemas.Run, 200: (schemas.Run, schemas.RunState)},
        (*_INPUT, 404, 409),
        requests.Execute,
        headers=[_KEY],
    ),
    ("POST", "/agent/runs"): Operation(
        "createRun",
        "Create a run, and start it unless told otherwise.",
        {201: schemas.Run, 200: schemas.Run},
        (*_INPUT, 409),
        requests.CreateRun,
        headers=[_KEY],
    ),
    ("GET", "/agent/runs"): Operation(
        "listRuns", "List your runs, newest first.", {200: schemas.RunList}, (400, 422), query=requests.ListQuery
    ),
    ("GET", "/agent/runs/{run_id}"): Operation("getRun", "Look at a run.", {200: schemas.Run}, (404,)),
    ("GET", "/agent/runs/{run_id}/attempts"): Operation(
        "listAttempts", "See who worked on a run.", {200: schemas.AttemptList}, (404,)
    ),
    ("DELETE", "/agent/runs/{run_id}"): Operation(
        "deleteRun", "Delete a run that has ended or was never started: record, log, files.", {204: None}, (404, 409)
    ),
    ("POST", "/agent/runs/{run_id}/start"): Operation(
        "startRun", "Queue a created run.", {200: schemas.RunState}, _MOVE
    ),
    ("POST", "/agent/runs/{run_id}/cancel"): Operation("cancelRun", "Cancel a run.", {200: schemas.RunState}, _MOVE),
    ("POST", "/agent/runs/{run_id}/retry"): Operation(
        "retryRun",
        "Queue a failed or cancelled run again; completed steps are not repeated.",
        {200: schemas.RunState},
        _MOVE,
        headers=[_KEY],
    ),
    ("POST", "/agent/runs/{run_id}/fork"): Operation(
        "forkRun",
        "Create a run that begins with the first steps of this one, as it did them.",
        {201: schemas.Run, 200: schemas.Run},
        (*_INPUT, 404, 409),
        requests.ForkRun,
        headers=[_KEY],
    ),
    ("POST", "/agent/runs/{run_id}/resume"): Operation(
        "resumeRun",
        "Give a waiting run its input.",
        {200: schemas.RunState},
        (*_INPUT, 404, 409),
        requests.ResumeRun,
        headers=[_KEY],
    ),
    ("POST", "/agent/runs/{run_id}/stream-token"): Operation(
        "mintStreamToken",
        "Get a short-lived token with which a browser can read the log of this run, and nothing else.",
        {201: schemas.StreamToken},
        (*_INPUT, 404, 501),
        requests.MintStreamToken,
        body_optional=True,
    ),
    ("GET", "/agent/runs/{run_id}/files"): Operation(
        "listFiles", "List the files of a run's workspace.", {200: schemas.FileList}, (404,)
    ),
    ("GET", "/agent/runs/{run_id}/files/{path}"): Operation(
        "getFile", "Redirects to the file's content, at a URL that expires soon.", {307: None}, (404, 422)
    ),
    ("GET", "/agent/logs/{run_id}"): Operation(
        "readLog",
        "Read a page of a run's log.",
        {200: schemas.LogPage},
        (404, 422),
        query=requests.LogQuery,
        stream_token=True,
    ),
    ("GET", "/agent/logs/{run_id}/stream"): Operation(
        "streamLog",
        "Follow a run's log: unnamed events with a LogEvent as data and its seq as id; `gap` for events that are no "
        "longer there; `end` after the last event of an ended run. 204: the client has them all.",
        {200: "text/event-stream", 204: None},
        (404, 422),
        query=requests.StreamQuery,
        headers=[_LAST_EVENT_ID],
        stream_token=True,
    ),
    ("GET", "/agent/queue"): Operation("getQueue", "How many runs stand where.", {200: QueueDepths}),
    ("GET", "/health"): Operation("health", "The process is up.", {200: schemas.Health}, public=True),
    ("GET", "/ready"): Operation("ready", "Redis can be reached.", {200: schemas.Health}),
    ("GET", "/openapi.json"): Operation("openapi", "This description.", {200: dict[str, Any]}),
    ("GET", "/events.schema.json"): Operation(
        "eventSchema",
        "The JSON Schema of one event of a log; `x-events` has the data of each type.",
        {200: dict[str, Any]},
    ),
}


def build(settings: ApiSettings) -> bytes:
    """The description as JSON."""
    kinds: list[object] = [schemas.Problem, schemas.LogEvent, schemas.Gap, schemas.StreamEnd]
    kinds += [*TOOLS.values(), *EVENTS.values()]
    for operation in OPERATIONS.values():
        for kind in (*operation.answers.values(), operation.body):
            kinds += kind if isinstance(kind, tuple) else [kind]
    types = [kind for kind in kinds if kind is not None and not isinstance(kind, str)]
    components = msgspec.json.schema_components(types, ref_template=REF)[1]
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = _operation(path, operation)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "SwissBrain Agent API",
            "version": VERSION,
            "description": f"Bodies are JSON of at most {settings.max_body_bytes} bytes, errors {errors.MEDIA_TYPE}.",
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}, "streamToken": _STREAM_TOKEN},
        },
        "x-tools": {name: {"$ref": REF.format(name=kind.__name__)} for name, kind in TOOLS.items()},
        "x-events": {name: {"$ref": REF.format(name=kind.__name__)} for name, kind in EVENTS.items()},
    }
    return msgspec.json.encode(document)


def _operation(path: str, operation: Operation) -> dict[str, Any]:
    parameters = [parameter for parameter in (_RUN_ID, _PATH) if f"{{{parameter['name']}}}" in path]
    parameters += [dict(header) for header in operation.headers]
    if operation.query is not None:
        parameters += _query_parameters(operation.query)
    refused = {*operation.refuses, 500} if operation.public else {*operation.refuses, 401, 403, 500, 502, 503}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            **{str(status): _answer(status, kind) for status, kind in operation.answers.items()},
            **{str(status): _problem(status) for status in sorted(refused)},
        },
    }
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        content = _content("application/json", _schema(operation.body))
        described["requestBody"] = {"required": not operation.body_optional, "content": content}
    if operation.public:
        described["security"] = []
    if operation.stream_token:
        described["security"] = [{"bearer": []}, {"streamToken": []}]
    return described


def _query_parameters(kind: type[msgspec.Struct]) -> list[dict[str, Any]]:
    ((_, components),) = [msgspec.json.schema_components([kind], ref_template=REF)]
    described = components[kind.__name__]["properties"]
    return [{"name": name, "in": "query", "schema": schema} for name, schema in described.items()]


def _answer(status: int, kind: object) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(kind, str):
        described["content"] = _content(kind, {"type": "string"})
    elif kind is not None:
        described["content"] = _content("application/json", _schema(kind))
    if status == HTTPStatus.TEMPORARY_REDIRECT:
        described["headers"] = {"Location": {"schema": {"type": "string"}}}
    return described


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": HTTPStatus(status).phrase,
        "content": _content(errors.MEDIA_TYPE, _schema(schemas.Problem)),
    }


def _schema(kind: object) -> dict[str, Any]:
    if isinstance(kind, tuple):
        return {"anyOf": [_schema(each) for each in kind]}
    ((schema,), _) = msgspec.json.schema_components([kind], ref_template=REF)
    return dict(schema)


def _content(media_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {media_type: {"schema": schema}}
