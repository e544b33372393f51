"""Row type of the API's endpoints: routing, access and OpenAPI description of one endpoint in one place.

To add an endpoint, write one handler method and one row in a module of `edge_api/routes`. The application builds its
routes and its access checks from the rows, and `edge_api.http.openapi` builds `/openapi.json` from them.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.types import ASGIApp

from edge_api.http.principal import Principal


class _FileConvertor(Convertor[str]):
    """Rest of a path, any characters. Starlette's own `path` drops a line break at the end, and matches no other."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _IndexConvertor(Convertor[int]):
    """Index of a step. Starlette's own `int` fails for a number with thousands of digits."""

    regex = "[0-9]{1,100}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("file", _FileConvertor())
register_url_convertor("index", _IndexConvertor())

Handler: TypeAlias = Callable[[Request, Principal], Awaitable[ASGIApp]]

BODY_ERRORS = (400, 413, 415, 422)
"""Statuses of a body that is unreadable, too large, not JSON, or invalid."""

IDEMPOTENCY_KEY: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A repeated request with the same key takes effect once; another request with this key gets 409.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
LAST_EVENT_ID: Mapping[str, Any] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "Sequence number of the last event that the client has.",
    "schema": {"type": "integer", "minimum": 0},
}


@dataclass(frozen=True)
class ApiEndpoint:
    """One endpoint. `path` is in Starlette's notation; a HEAD request goes to the handler for GET.

    Access: `scope` is the scope that the principal needs, None allows every authenticated principal. `stream_token`
    accepts a stream token of the run in the path instead of a bearer token. `public` skips authentication.

    Description: `success` maps each status to the type of the response body, a tuple of types, a media type, or None
    for an empty body. `errors` are the statuses of rejected requests, without those that every endpoint can return.
    `body_optional`: the body may be left out, because all of its fields have defaults.
    """

    method: str
    path: str
    handler: Handler
    scope: str | None = None
    _: KW_ONLY
    stream_token: bool = False
    public: bool = False
    operation_id: str
    summary: str
    success: Mapping[int, object]
    errors: Sequence[int] = ()
    body: object = None
    body_optional: bool = False
    query: type[msgspec.Struct] | None = None
    headers: Sequence[Mapping[str, Any]] = ()
