"""Parse what a client sends: bodies, query strings, headers. An error names the offending field."""

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from starlette.requests import Request

from edge_api.http.errors import BadRequest, BodyTooLarge, WrongMediaType
from edge_api.http.request_models import MAX_SEQ, Nothing
from infra import asgi
from infra.contract.errors import InvalidInput
from infra.contract.validation import invalid_input

T = TypeVar("T")

_DRAIN_FACTOR = 16  # an oversized body is read up to this multiple of the limit, so that the client sees the error
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_COUNT = re.compile(r"[0-9]{1,16}")


async def read_json(request: Request, kind: type[T], limit_bytes: int) -> T:
    """Return the body as a `kind`. Raises BadRequest, WrongMediaType, BodyTooLarge, InvalidInput."""
    body = await read_body(request, limit_bytes)
    if not body.strip():
        raise BadRequest("the body is empty; send a JSON object")
    return _decode(kind, body, request)


async def read_optional(request: Request, kind: type[T], limit_bytes: int) -> T:
    """Return the body as a `kind` all of whose fields have defaults; an empty body gives the defaults.

    Raises BadRequest, WrongMediaType, BodyTooLarge, InvalidInput.
    """
    body = await read_body(request, limit_bytes)
    return _decode(kind, body, request) if body.strip() else kind()


async def read_nothing(request: Request, limit_bytes: int) -> None:
    """Check that the body is absent, empty, or an empty JSON object. Raises BadRequest, BodyTooLarge, InvalidInput."""
    # A request without either header has no body (RFC 9112), so there is nothing to receive.
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        body = await read_body(request, limit_bytes)
        if body.strip():
            _check_empty_object(body)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Return the body. Raises BodyTooLarge if it has more than `limit_bytes`, whatever Content-Length is."""
    drain_bytes = _DRAIN_FACTOR * limit_bytes
    body = await asgi.read_body(request.scope, request.receive, limit_bytes=limit_bytes, drain_bytes=drain_bytes)
    if body is None:
        raise BodyTooLarge(f"the body is larger than {limit_bytes} bytes")
    return body


def read_query(request: Request, kind: type[T]) -> T:
    """Return the query string as a `kind`. Raises InvalidInput, naming the parameter."""
    items = request.query_params.multi_items()
    values: Mapping[str, str] = dict(items)
    if len(values) < len(items):
        repeated = next(name for name, _ in items if len(request.query_params.getlist(name)) > 1)
        raise InvalidInput("the parameter is given twice", repeated)
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as exc:
        error = invalid_input(exc, kind, at="$")
        # msgspec and its paths speak of JSON objects; a client of the query string sent parameters.
        message = str(error).replace("Object contains unknown field", "unknown parameter")
        raise InvalidInput(message, error.field.removeprefix("$.")) from exc


def idempotency_key(request: Request) -> str | None:
    """Return the header `Idempotency-Key`, None if it is absent. Raises InvalidInput."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidInput("must be 1 to 255 visible ASCII characters", "Idempotency-Key")
    return key


def last_event_id(request: Request) -> int | None:
    """Return the header `Last-Event-ID` of a reconnecting EventSource, None if it is absent or empty.

    Raises InvalidInput.
    """
    text = request.headers.get("last-event-id", "")
    if not text:
        return None
    if not _COUNT.fullmatch(text) or int(text) > MAX_SEQ:
        raise InvalidInput("must be the sequence number of an event", "Last-Event-ID")
    return int(text)


def _decode(kind: type[T], body: bytes, request: Request) -> T:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise WrongMediaType(f"the Content-Type is '{media_type[:100]}'; send 'Content-Type: application/json'")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise invalid_input(exc, kind, at="$") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadRequest(f"the body is not valid JSON: {exc}") from exc
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None


def _check_empty_object(body: bytes) -> None:
    # The media type is not checked, because the body carries no data.
    try:
        msgspec.json.decode(body, type=Nothing)
    except msgspec.ValidationError as exc:
        raise invalid_input(exc, Nothing, at="$") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest("the body is neither empty nor a JSON object") from exc
