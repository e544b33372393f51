"""Reading what a client sends: bodies, queries, headers. Everything wrong is refused with the name of the field."""

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from starlette.requests import Request

from edge_api.http.errors import BadRequest, BodyTooLarge, WrongMediaType
from edge_api.http.request_models import MAX_SEQ, Nothing
from infra.contract.errors import InvalidInput
from infra.contract.validation import invalid_input

T = TypeVar("T")

_PATIENCE = 16
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_COUNT = re.compile(r"[0-9]{1,16}")


async def read_json(request: Request, kind: type[T], limit_bytes: int) -> T:
    """The body as a `kind`. Raises BadRequest, WrongMediaType, BodyTooLarge, InvalidInput."""
    body = await read_body(request, limit_bytes)
    if not body.strip():
        raise BadRequest("the body is empty; send a JSON object")
    return _as(kind, body, request)


async def read_optional(request: Request, kind: type[T], limit_bytes: int) -> T:
    """The same for a `kind` that needs no field: without a body, all of them have their defaults."""
    body = await read_body(request, limit_bytes)
    return _as(kind, body, request) if body.strip() else kind()


def _as(kind: type[T], body: bytes, request: Request) -> T:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise WrongMediaType(f"the body is said to be '{media_type[:100]}'; send 'Content-Type: application/json'")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise invalid_input(exc, kind, at="$") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadRequest(f"the body is not valid JSON: {exc}") from exc
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None


async def read_nothing(request: Request, limit_bytes: int) -> None:
    """For requests that need no body: none, or an empty object."""
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        body = await read_body(request, limit_bytes)
        if body.strip():
            await _as_nothing(body)


async def _as_nothing(body: bytes) -> None:
    try:
        msgspec.json.decode(body, type=Nothing)
    except msgspec.ValidationError as exc:
        raise invalid_input(exc, Nothing, at="$") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest("the body is neither empty nor a JSON object") from exc


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The body, whatever its length is said to be. Raises BodyTooLarge.

    What is too long is read a while further without being kept: closing a connection with unread bytes resets it,
    and the client would never see the answer.
    """
    patience = _PATIENCE * limit_bytes
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() and len(declared) < 20 and int(declared) > patience else 0
    body = bytearray()
    if size <= patience:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit_bytes:
                body += chunk
            if size > patience:
                break
    if size > limit_bytes:
        raise BodyTooLarge(f"the body is larger than {limit_bytes} bytes")
    return bytes(body)


def read_query(request: Request, kind: type[T]) -> T:
    """The query string as a `kind`. Raises InvalidInput, naming the parameter."""
    given = request.query_params.multi_items()
    values: Mapping[str, str] = dict(given)
    if len(values) < len(given):
        twice = next(name for name, _ in given if len(request.query_params.getlist(name)) > 1)
        raise InvalidInput("the parameter is given twice", twice)
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as exc:
        error = invalid_input(exc, kind, at="$")
        message = str(error).replace("Object contains unknown field", "unknown parameter")
        raise InvalidInput(message, error.field.removeprefix("$.")) from exc


def idempotency_key(request: Request) -> str | None:
    """The header `Idempotency-Key`, if it is there. Raises InvalidInput."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidInput("must be 1 to 255 visible ASCII characters", "Idempotency-Key")
    return key


def last_event_id(request: Request) -> int | None:
    """The header `Last-Event-ID`, which a reconnecting EventSource sends; None if it is absent or empty."""
    text = request.headers.get("last-event-id", "")
    if not text:
        return None
    if not _COUNT.fullmatch(text) or int(text) > MAX_SEQ:
        raise InvalidInput("must be the sequence number of an event", "Last-Event-ID")
    return int(text)
