"""Errors that the edge raises itself, and the one place where an error gets its HTTP status.

EdgeError
├── Unauthenticated            the bearer token is missing or unknown
├── StreamTokenInvalid         the stream token was not made by this API, or is not the only credential
├── StreamTokenExpired         the stream token has expired
├── StreamTokenForAnotherRun   the stream token is for another run
├── StreamTokensOff            this API has no key to sign stream tokens with
├── SchedulesOff               this API has no access to QStash
├── WebhooksOff                this API has no access to QStash, or no key to sign with
├── Forbidden                  the token lacks a scope
├── BadRequest                 the request cannot be read: no body, or not JSON
├── BadCursor                  the cursor was not issued by this API to this user
├── BodyTooLarge               the body is larger than the limit
├── WrongMediaType             the Content-Type is not JSON
├── CodedBody                  the body is compressed
├── KeyReused                  the idempotency key belongs to another request
├── OutOfTime                  the time of the function ended before the response
├── RequestNotOpen             the answered request of the run is not open
└── InputsMissing              announced input files are not uploaded
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from msgspec import UNSET, Struct, json
from starlette.responses import Response
from starlette.types import Scope

from edge_api.http.response_models import Problem
from infra.contract import errors as domain
from infra.logging import log

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:swissbrain:problem:"
RETRY_AFTER_S = 2
UNRETRYABLE = 489
"""Status, defined by QStash, of a call that it must not repeat."""


class EdgeError(Exception):
    """Base of the edge's own errors. `field` names the offending parameter, header or field, if there is one."""

    field = ""


class Unauthenticated(EdgeError):
    """The bearer token is missing or unknown."""


class StreamTokenInvalid(EdgeError):
    """The stream token was not made by this API, or is not the only credential of the request."""

    field = "token"


class StreamTokenExpired(EdgeError):
    """The stream token has expired; the client can continue with a new one."""

    field = "token"


class StreamTokenForAnotherRun(EdgeError):
    """The stream token is for another run."""

    field = "token"


class StreamTokensOff(EdgeError):
    """This API has no key to sign stream tokens with."""


class SchedulesOff(EdgeError):
    """This API has no access to QStash."""


class WebhooksOff(EdgeError):
    """This API has no access to QStash, or no key to sign webhooks with."""


class Forbidden(EdgeError):
    """The token lacks the scope `scope`."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"this needs the scope '{scope}'")
        self.scope = scope


class BadRequest(EdgeError):
    """The request cannot be read: it has no body, or the body is not JSON."""


class BadCursor(EdgeError):
    """The cursor was not issued by this API to this user."""

    field = "cursor"


class BodyTooLarge(EdgeError):
    """The body is larger than the limit."""


class WrongMediaType(EdgeError):
    """The Content-Type is not JSON."""


class CodedBody(EdgeError):
    """The body is compressed, or has another content coding."""

    field = "Content-Encoding"


class KeyReused(EdgeError):
    """The idempotency key was used for another request."""

    field = "Idempotency-Key"


class OutOfTime(EdgeError):
    """The time of the function ended before the response. The request may have been carried out."""


class InputsMissing(EdgeError):
    """Announced input files are not in the object store, or are others. `missing` are their paths."""

    def __init__(self, missing: Sequence[str]) -> None:
        names = ", ".join(f"'{path}'" for path in missing[:3]) + (" and others" if len(missing) > 3 else "")
        super().__init__(f"{len(missing)} input files are not uploaded: {names}; upload or announce them again")
        self.missing = list(missing)


class RequestNotOpen(EdgeError):
    """A request that is answered is not open, or it is not clear which one is meant. `open_requests` are open."""

    def __init__(self, open_requests: Sequence[str], *, named: bool) -> None:
        ids = ", ".join(open_requests) or "none"
        reason = "a request of these ids is not open" if named else "without 'answers' exactly one request must be open"
        super().__init__(f"{reason}; open are: {ids}")
        self.open_requests = list(open_requests)
        self.status = "waiting"


class _Kind(Struct, frozen=True):
    status: int
    slug: str
    title: str
    detail: str = ""
    headers: Mapping[str, str] = {}


_RETRY = {"Retry-After": str(RETRY_AFTER_S)}
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="swissbrain"'}
_BAD_TOKEN = {"WWW-Authenticate": f'{_CHALLENGE["WWW-Authenticate"]}, error="invalid_token"'}

_KINDS: Mapping[type[Exception], _Kind] = {
    Unauthenticated: _Kind(HTTPStatus.UNAUTHORIZED, "unauthenticated", "Not authenticated", headers=_CHALLENGE),
    StreamTokenInvalid: _Kind(
        HTTPStatus.UNAUTHORIZED, "stream-token-invalid", "The stream token is not valid", headers=_BAD_TOKEN
    ),
    StreamTokenExpired: _Kind(
        HTTPStatus.UNAUTHORIZED, "stream-token-expired", "The stream token has expired", headers=_BAD_TOKEN
    ),
    StreamTokenForAnotherRun: _Kind(
        HTTPStatus.FORBIDDEN, "stream-token-of-another-run", "The stream token is for another run"
    ),
    StreamTokensOff: _Kind(HTTPStatus.NOT_IMPLEMENTED, "stream-tokens-off", "There are no stream tokens here"),
    SchedulesOff: _Kind(HTTPStatus.NOT_IMPLEMENTED, "schedules-off", "There are no schedules here"),
    WebhooksOff: _Kind(HTTPStatus.NOT_IMPLEMENTED, "webhooks-off", "There are no webhooks here"),
    # Not a status of the server: an operator's alarm must not ring because a user's receiver is down.
    domain.DeliveryFailed: _Kind(HTTPStatus.FAILED_DEPENDENCY, "delivery-failed", "The event was not accepted"),
    domain.DeliveryRefused: _Kind(
        UNRETRYABLE, "delivery-refused", "The event cannot be delivered", headers={"Upstash-NonRetryable-Error": "true"}
    ),
    Forbidden: _Kind(HTTPStatus.FORBIDDEN, "forbidden", "Not allowed"),
    BadRequest: _Kind(HTTPStatus.BAD_REQUEST, "bad-request", "The request cannot be read"),
    BadCursor: _Kind(HTTPStatus.BAD_REQUEST, "bad-cursor", "The cursor is not valid"),
    BodyTooLarge: _Kind(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", "The body is too large"),
    WrongMediaType: _Kind(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "wrong-media-type", "The body must be JSON"),
    CodedBody: _Kind(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "coded-body",
        "The body must not be compressed",
        headers={"Accept-Encoding": "identity"},
    ),
    OutOfTime: _Kind(HTTPStatus.GATEWAY_TIMEOUT, "out-of-time", "The request took too long"),
    KeyReused: _Kind(HTTPStatus.CONFLICT, "idempotency-key-reused", "The idempotency key is taken"),
    RequestNotOpen: _Kind(HTTPStatus.CONFLICT, "request-not-open", "The request is not open"),
    InputsMissing: _Kind(HTTPStatus.CONFLICT, "inputs-missing", "Input files are missing"),
    domain.InvalidInput: _Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-input", "The input is not valid"),
    domain.RunGone: _Kind(HTTPStatus.NOT_FOUND, "run-not-found", "There is no such run"),
    domain.ScheduleGone: _Kind(HTTPStatus.NOT_FOUND, "schedule-not-found", "There is no such schedule"),
    domain.CallRejected: _Kind(HTTPStatus.UNAUTHORIZED, "call-rejected", "The call is not one of QStash"),
    domain.RecordUnreadable: _Kind(
        HTTPStatus.INTERNAL_SERVER_ERROR, "record-unreadable", "The record of the run cannot be read"
    ),
    domain.FileMissing: _Kind(HTTPStatus.NOT_FOUND, "file-not-found", "There is no such file"),
    domain.LimitExceeded: _Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "limit-exceeded", "A limit is exceeded"),
    domain.TransitionRefused: _Kind(HTTPStatus.CONFLICT, "transition-refused", "The run does not allow this now"),
    domain.StoreUnavailable: _Kind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "store-unavailable",
        "The run store does not answer",
        "the run store did not answer; the request may have been carried out, repeat it with its Idempotency-Key",
        _RETRY,
    ),
    domain.StoreRefuses: _Kind(
        HTTPStatus.SERVICE_UNAVAILABLE, "store-refuses", "The run store refuses commands for now", headers=_RETRY
    ),
    domain.StoreFull: _Kind(
        HTTPStatus.INSUFFICIENT_STORAGE,
        "store-full",
        "The run store is full",
        "the run store has no memory left and refused the change; delete ended runs, or give Redis more memory",
    ),
    domain.QStashUnavailable: _Kind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "qstash-unavailable",
        "QStash does not answer",
        "QStash did not answer, or refused; the change is recorded, and is carried out later or at a repetition",
        _RETRY,
    ),
    domain.FilesUnavailable: _Kind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "files-unavailable",
        "The object store does not answer",
        "the object store did not answer or failed",
        _RETRY,
    ),
    domain.HostExhausted: _Kind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "host-exhausted",
        "The API lacks a resource",
        "the API's own host has no file descriptors, threads, memory or disk space left; its log names which",
        _RETRY,
    ),
    domain.StoreRejected: _Kind(
        HTTPStatus.BAD_GATEWAY, "store-rejected", "The run store failed", "the run store refused a command"
    ),
}
_UNEXPECTED = _Kind(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "internal",
    "Internal error",
    "the request failed unexpectedly; the error has been logged",
)


def describe(exc: Exception) -> tuple[Problem, Mapping[str, str]]:
    """Return the problem document of an error (RFC 9457) and its headers."""
    # The most specific class wins, so a subclass can override the status of its base.
    kind = next((_KINDS[base] for base in type(exc).__mro__ if base in _KINDS), _UNEXPECTED)
    problem = Problem(
        type=f"{TYPE_PREFIX}{kind.slug}",
        title=kind.title,
        status=int(kind.status),
        detail=kind.detail or str(exc),
        field=getattr(exc, "field", "") or UNSET,
        run_status=exc.status if isinstance(exc, domain.TransitionRefused | RequestNotOpen) else UNSET,
        open_requests=getattr(exc, "open_requests", UNSET),
        missing=getattr(exc, "missing", UNSET),
    )
    if isinstance(exc, Forbidden):
        challenge = f'{_CHALLENGE["WWW-Authenticate"]}, error="insufficient_scope", scope="{exc.scope}"'
        return problem, {"WWW-Authenticate": challenge}
    if isinstance(exc, domain.DeliveryFailed) and exc.retry_after_s:
        return problem, {**kind.headers, "Retry-After": str(exc.retry_after_s)}
    return problem, kind.headers


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem as a response."""
    body = json.encode(problem)
    return Response(body, problem.status, {"Cache-Control": "no-store", **(headers or {})}, MEDIA_TYPE)


def report(exc: Exception, scope: Scope) -> tuple[Problem, Mapping[str, str]]:
    """Return the problem document and the headers of an error; log the error if it is not the client's."""
    problem, headers = describe(exc)
    # Not the URL of the request, which cannot be built from every Host header.
    method, path = scope["method"], scope["path"]
    if not isinstance(exc, domain.ContractError | EdgeError):
        log("request.crashed", level=logging.ERROR, error=exc, method=method, path=path)
    elif problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        reason = f"{type(exc).__name__}: {exc}"
        log("request.failed", level=logging.WARNING, status=problem.status, path=path, reason=reason)
    return problem, headers
