"""`/openapi.json`, built from the endpoint rows and from the types that validate requests and encode responses."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from edge_api.http import errors
from edge_api.http import response_models as schemas
from edge_api.http.endpoint import ApiEndpoint
from edge_api.http.service_models import VERSION
from edge_api.settings import ApiSettings
from infra.contract.events import EVENTS
from infra.contract.tools import TOOLS

REF = "#/components/schemas/{name}"
_RUN_ID = {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string"}}
_PATH = {
    "name": "path",
    "in": "path",
    "required": True,
    "description": "Path relative to the workspace; it may contain slashes.",
    "schema": {"type": "string"},
}
_STREAM_TOKEN = {
    "type": "apiKey",
    "in": "query",
    "name": "token",
    "description": "A stream token of the run in the path, instead of the header Authorization.",
}
_INDEX = {
    "name": "index",
    "in": "path",
    "required": True,
    "description": "Index of the step, counted from 0.",
    "schema": {"type": "integer", "minimum": 0},
}
_EVENT_ID = {"name": "event_id", "in": "path", "required": True, "schema": {"type": "string"}}
_SCHEDULE_ID = {"name": "schedule_id", "in": "path", "required": True, "schema": {"type": "string"}}
# Starlette writes the type of a path parameter into the path, `{path:file}`; OpenAPI does not.
_CONVERTOR = re.compile(r":\w+}")


def build(settings: ApiSettings, endpoints: Sequence[ApiEndpoint]) -> bytes:
    """Return the OpenAPI 3.1 document of the endpoints as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = _CONVERTOR.sub("}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(path, endpoint)
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
            "schemas": _components(endpoints),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}, "streamToken": _STREAM_TOKEN},
        },
        "x-tools": {name: {"$ref": REF.format(name=kind.__name__)} for name, kind in TOOLS.items()},
        "x-events": {name: {"$ref": REF.format(name=kind.__name__)} for name, kind in EVENTS.items()},
    }
    return msgspec.json.encode(document)


def _components(endpoints: Sequence[ApiEndpoint]) -> dict[str, Any]:
    kinds: list[object] = [schemas.Problem, schemas.LogEvent, schemas.Gap, schemas.Skipped, schemas.StreamEnd]
    kinds += [*TOOLS.values(), *EVENTS.values()]
    for endpoint in endpoints:
        for kind in (*endpoint.success.values(), endpoint.body):
            kinds += kind if isinstance(kind, tuple) else [kind]
    types = [kind for kind in kinds if kind is not None and not isinstance(kind, str)]
    return msgspec.json.schema_components(types, ref_template=REF)[1]


def _operation(path: str, endpoint: ApiEndpoint) -> dict[str, Any]:
    in_path = (_RUN_ID, _PATH, _INDEX, _SCHEDULE_ID, _EVENT_ID)
    parameters = [parameter for parameter in in_path if f"{{{parameter['name']}}}" in path]
    parameters += [dict(header) for header in endpoint.headers]
    if endpoint.query is not None:
        parameters += _query_parameters(endpoint.query)
    # Authentication and Redis can fail before and behind every endpoint that is not public.
    errors_of_all = {500} if endpoint.public else {401, 403, 500, 502, 503, 507}
    described: dict[str, Any] = {
        "operationId": endpoint.operation_id,
        "summary": endpoint.summary,
        "responses": {
            **{str(status): _success(status, kind) for status, kind in endpoint.success.items()},
            **{str(status): _problem(status) for status in sorted({*endpoint.errors, *errors_of_all})},
        },
    }
    if parameters:
        described["parameters"] = parameters
    if endpoint.body is not None:
        content = _content("application/json", _schema(endpoint.body))
        described["requestBody"] = {"required": not endpoint.body_optional, "content": content}
    if endpoint.public:
        described["security"] = []
    if endpoint.stream_token:
        described["security"] = [{"bearer": []}, {"streamToken": []}]
    return described


def _query_parameters(kind: type[msgspec.Struct]) -> list[dict[str, Any]]:
    ((_, components),) = [msgspec.json.schema_components([kind], ref_template=REF)]
    described = components[kind.__name__]["properties"]
    return [_query_parameter(name, schema) for name, schema in described.items()]


def _query_parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    # OpenAPI has no style for `NAME.KEY=VALUE`: such parameters are described by one of them.
    if schema.get("type") == "object":
        described = f"One for each KEY, at most {schema['maxProperties']}: only runs that have this value."
        return {
            "name": f"{name}.KEY",
            "in": "query",
            "description": described,
            "schema": schema["additionalProperties"],
        }
    shape = {"explode": False} if schema.get("type") == "array" else {}
    return {"name": name, "in": "query", "schema": schema, **shape}


def _success(status: int, kind: object) -> dict[str, Any]:
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
        "description": "Not to be repeated" if status == errors.UNRETRYABLE else HTTPStatus(status).phrase,
        "content": _content(errors.MEDIA_TYPE, _schema(schemas.Problem)),
    }


def _schema(kind: object) -> dict[str, Any]:
    if isinstance(kind, tuple):
        return {"anyOf": [_schema(each) for each in kind]}
    ((schema,), _) = msgspec.json.schema_components([kind], ref_template=REF)
    return dict(schema)


def _content(media_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {media_type: {"schema": schema}}
