"""Parse what a client sends: bodies, query strings, headers. An error names the offending field."""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect
from starlette.requests import Request

from edge_api.http.errors import BadRequest, BodyTooLarge, CodedBody, WrongMediaType
from edge_api.http.request_models import MAX_SEQ, Nothing
from infra import asgi
from infra.contract.errors import InvalidInput
from infra.contract.validation import invalid_input, json_number

T = TypeVar("T")
Query = TypeVar("Query", bound=msgspec.Struct)

_DRAIN_FACTOR = 16  # an oversized body is read up to this multiple of the limit, so that the client sees the error
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_QUALITY = re.compile(r"[01](?:\.[0-9]{0,3})?")
_COUNT = re.compile(r"[0-9]{1,16}")
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF8_NAMES = frozenset({"", "utf-8", "utf8", "us-ascii"})


async def read_json(request: Request, kind: type[T], limit_bytes: int) -> T:
    """Return the body as a `kind`. Raises BadRequest, WrongMediaType, BodyTooLarge, InvalidInput."""
    body = await read_body(request, limit_bytes)
    if not body.strip():
        raise BadRequest("the body is empty; send a JSON object")
    return _decode(kind, body, request)


async def read_optional(request: Request, kind: type[T], limit_bytes: int) -> T:
    """Return the body as a `kind` all of whose fields have defaults; an empty body or object gives the defaults.

    Raises BadRequest, WrongMediaType, BodyTooLarge, InvalidInput.
    """
    body = await read_body(request, limit_bytes)
    # An endpoint that had no body in an earlier release accepts `{}` with any Content-Type, as then.
    return kind() if body.strip() in {b"", b"{}"} else _decode(kind, body, request)


async def read_nothing(request: Request, limit_bytes: int) -> None:
    """Check that the body is absent, empty, or an empty JSON object. Raises BadRequest, BodyTooLarge, InvalidInput."""
    # A request without either header has no body (RFC 9112), so there is nothing to receive.
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        body = await read_body(request, limit_bytes)
        if body.strip():
            _check_empty_object(body)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Return the body.

    Raises BodyTooLarge if it has more than `limit_bytes`, whatever Content-Length is, and CodedBody if it is
    compressed.
    """
    drain_bytes = _DRAIN_FACTOR * limit_bytes
    body = await asgi.read_body(request.scope, request.receive, limit_bytes=limit_bytes, drain_bytes=drain_bytes)
    if body is None:
        raise BodyTooLarge(f"the body is larger than {limit_bytes} bytes")
    codings = [coding.strip() for coding in _joined(request, "content-encoding").lower().split(",")]
    if coded := next((coding for coding in codings if coding not in {"", "identity"}), None):
        raise CodedBody(f"the Content-Encoding is '{coded[:100]}'; send the body without compression")
    return body.removeprefix(_UTF8_BOM)  # RFC 8259 lets a parser ignore the mark that some Windows programs write


def read_query(request: Request, kind: type[Query], absent_if_empty: str = "") -> Query:
    """Return the query string as a `kind`. Raises InvalidInput, naming the parameter.

    A list is given as values separated by commas, a dict as one parameter `NAME.KEY=VALUE` for each of its keys. The
    parameter `absent_if_empty` may be given without a value.
    """
    values: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in values:
            raise InvalidInput("the parameter is given twice", name)
        values[name] = value
    if not values.get(absent_if_empty):
        values.pop(absent_if_empty, None)
    try:
        return msgspec.convert(_composed(values, kind), kind, strict=False)
    except msgspec.ValidationError as exc:
        error = invalid_input(exc, kind, at="$")
        # msgspec and its paths speak of JSON objects; a client of the query string sent parameters.
        message = str(error).replace("Object contains unknown field", "unknown parameter")
        raise InvalidInput(message, error.field.removeprefix("$.").partition("[")[0]) from exc


def _composed(values: Mapping[str, str], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the parameters with lists and dicts put together. Raises InvalidInput."""
    composed: dict[str, Any] = {}
    shapes = _shapes(kind)
    for name, value in values.items():
        base, dot, key = name.partition(".")
        if shapes.get(name) is inspect.DictType:
            raise InvalidInput(f"give one parameter '{name}.KEY=VALUE' for each key", name)
        if dot and shapes.get(base) is inspect.DictType:
            composed.setdefault(base, {})[key] = value
        else:
            composed[name] = value.split(",") if shapes.get(name) is inspect.ListType else value
    return composed


@cache
def _shapes(kind: type[msgspec.Struct]) -> Mapping[str, type[inspect.Type]]:
    """Return the type of each field that is a list or a dict."""
    info = inspect.type_info(kind)
    fields = info.fields if isinstance(info, inspect.StructType) else ()
    types = {field.encode_name: field.type for field in fields}
    return {name: type(of.type if isinstance(of, inspect.Metadata) else of) for name, of in types.items()}


def idempotency_key(request: Request) -> str | None:
    """Return the header `Idempotency-Key`, None if it is absent. Raises InvalidInput."""
    key = _joined(request, "idempotency-key") if "idempotency-key" in request.headers else None
    return check_key(key, "Idempotency-Key")


def traceparent(request: Request) -> str | None:
    """Return the header `traceparent` (W3C Trace Context), None if it is absent, invalid, or of another version."""
    # The standard asks to ignore, not to refuse, what cannot be read. Workers ignore ids of zeros as well.
    header = request.headers.get("traceparent", "")
    return header if _TRACEPARENT.fullmatch(header) else None


def check_key(key: str | None, field: str) -> str | None:
    """Return an idempotency key, None if it is absent. Raises InvalidInput."""
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidInput("must be 1 to 255 visible ASCII characters", field)
    return key


def convert(value: object, kind: type[T], at: str) -> T:
    """Return decoded JSON as a `kind`. Raises InvalidInput for a field below the path `at`."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise invalid_input(exc, kind, at=at) from exc


def _joined(request: Request, name: str) -> str:
    """Return the values of a header that may be there several times, as gateways and proxies join them."""
    return ", ".join(request.headers.getlist(name))


def prefers_json(request: Request) -> bool:
    """Return whether the header `Accept` prefers JSON to content of any other type. A tie is no preference."""
    qualities: dict[str, float] = {}
    for part in request.headers.get("accept", "").lower().split(","):
        media_range, *parameters = (each.strip() for each in part.split(";"))
        given = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        qualities[media_range] = float(given) if _QUALITY.fullmatch(given) else 1.0

    def quality(media_type: str) -> float:
        ranges = (media_type, "application/*", "*/*")
        return next((qualities[each] for each in ranges if each in qualities), 0.0)

    return quality("application/json") > quality("application/octet-stream")


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
    media_type, _, parameters = request.headers.get("content-type", "application/json").lower().partition(";")
    if media_type.strip() != "application/json":
        raise WrongMediaType(f"the Content-Type is '{media_type[:100]}'; send 'Content-Type: application/json'")
    try:
        # In two steps, because a typed decoder refuses `4.0` as an integer and has no hook for it.
        value = _decoder.decode(body)
        _check_all_keys(body.decode())
        return convert(value, kind, "$")
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        charset = _charset(parameters)
        # Only a body that cannot be read is refused for its charset: ASCII text is UTF-8 whatever a client calls it.
        if charset not in _UTF8_NAMES:
            raise WrongMediaType(f"the body is not valid JSON in UTF-8; its charset is '{charset[:100]}'") from exc
        raise BadRequest(f"the body is not valid JSON: {_problem(exc, body)}") from exc
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None


def _problem(exc: Exception, body: bytes) -> str:
    if isinstance(exc, UnicodeDecodeError):
        # msgspec counts from the begin of the text within the body.
        try:
            body.decode()
        except UnicodeDecodeError as error:
            return f"it is not UTF-8 (byte {error.start})"
    return str(exc)


def _charset(parameters: str) -> str:
    values = dict(part.strip().partition("=")[::2] for part in parameters.split(";"))
    return values.get("charset", "").strip('"')


# Equal numbers are equal content, because the digest of a request decides whether its idempotency key was used for the
# same request.
_decoder = msgspec.json.Decoder(float_hook=json_number)


def _check_keys(pairs: list[tuple[str, Any]]) -> None:
    """Raise BadRequest for an object in which a key is there twice."""
    if len(dict(pairs)) == len(pairs):
        return
    seen = set[str]()
    for key, _ in pairs:
        if key in seen:
            raise BadRequest(f"the body has the key '{key[:100]}' twice in one object")
        seen.add(key)


# msgspec keeps the last of equal keys; whoever keeps the first would check another request than the one carried out.
_check_all_keys = json.JSONDecoder(object_pairs_hook=_check_keys, parse_int=str, parse_float=str).decode


def _check_empty_object(body: bytes) -> None:
    # The media type is not checked, because the body carries no data.
    try:
        msgspec.json.decode(body, type=Nothing)
    except msgspec.ValidationError as exc:
        raise invalid_input(exc, Nothing, at="$") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest("the body is neither empty nor a JSON object") from exc
