"""Messages of HTTP as values: requests are encoded, responses decoded, and error responses turned into exceptions."""

import math
import random
import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
import msgspec
from tenacity import RetryCallState

from swissbrain.decoding import from_json
from swissbrain.environment import through_proxy
from swissbrain.errors import ApiError, ClientError, ProtocolError, Unreachable
from swissbrain.models import Problem
from swissbrain.request import Request

T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0
MAX_RETRY_AFTER_S = 30.0
BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, 503, HTTPStatus.GATEWAY_TIMEOUT})

_VISIBLE_ASCII = re.compile("[!-~]+")
_CHANGED = frozenset(["BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"])
"""Codes of object stores for a content that is not the announced one."""
_STORE_CODE = re.compile("<Code>([A-Za-z0-9]{1,100})</Code>")


class Busy(Unreachable):
    """Response of an API that is overloaded or restarting; `retry_after_s` is the wait it asks for in seconds, or 0."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def check_access(base_url: str, token: str) -> httpx.URL:
    """Return the address of the API as a URL. Raises ClientError if the address or the token is malformed."""
    if not _VISIBLE_ASCII.fullmatch(token):
        raise ClientError("the token is malformed: it consists of visible ASCII characters, without spaces")
    try:
        # A user name, a password or a query in the address is rejected: error messages name the address and must not
        # hold secrets, and httpx would send the password instead of the token, and lose the paths of requests.
        url = httpx.URL(base_url)
        if url.userinfo or "?" in base_url or "#" in base_url:
            raise ValueError
        url.host.encode("idna")  # as the resolver does; fails here for labels that are empty or too long
        if url.scheme in {"http", "https"} and not (url.host and (url.port is None or 0 < url.port < 65536)):
            raise ValueError
    except (httpx.InvalidURL, ValueError):
        raise ClientError("the API's address is malformed, or has a user name or a query") from None
    return url


def encode(request: Request[Any], http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
    """Return the request as `http` sends it. Raises ClientError for a request that cannot be sent."""
    headers = {}
    content = None
    try:
        if request.json is not None:
            headers["Content-Type"] = "application/json"
            content = encode_json(request.json)
        if request.key is not None:
            if not _VISIBLE_ASCII.fullmatch(request.key):
                raise ClientError("an idempotency key consists of visible ASCII characters")
            headers["Idempotency-Key"] = request.key
        if request.accept is not None:
            headers["Accept"] = request.accept
        timeout = http.timeout.as_dict()
        if timeout["read"] is not None:
            timeout["read"] += request.held_s
        return http.build_request(
            request.method,
            request.path,
            content=content,
            params=request.params,
            headers=headers,
            timeout=httpx.Timeout(**timeout),
        )
    except (httpx.InvalidURL, UnicodeEncodeError, RecursionError) as exc:
        raise unsendable(exc) from exc


def encode_json(value: object) -> bytes:
    """Return a value as JSON. Raises ClientError for a number that JSON does not have; UnicodeEncodeError too."""
    if isinstance(value, msgspec.Raw):
        return bytes(value)
    # msgspec encodes only dict; the hook converts other mappings.
    body = msgspec.to_builtins(value, enc_hook=dict)
    _check_finite(body, "$")
    return msgspec.json.encode(body)


def decode(body: bytes, request: Request[T], base_url: str) -> T:
    """Return the decoded body of a response. Raises ProtocolError."""
    try:
        return from_json(body, request.response)
    except msgspec.DecodeError as exc:
        raise ProtocolError(f"{base_url} does not answer as this API does: {exc}") from exc


def _check_finite(value: Any, at: str) -> None:
    """Raise ClientError for a number that JSON does not have: msgspec would send it as null, which means no limit."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ClientError(f"the request cannot be sent: {at} is {value}, which is not a number of JSON")
    if isinstance(value, dict):
        for name, item in value.items():
            _check_finite(item, f"{at}.{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_finite(item, f"{at}[{index}]")


def unsendable(exc: Exception) -> ClientError:
    """Return the error for arguments that no request can be built from."""
    problem = "it is not Unicode text" if isinstance(exc, UnicodeError) else exc
    return ClientError(f"the request cannot be sent: {problem}")


def connection_error(base_url: str, exc: httpx.RequestError) -> ClientError:
    """Return the error for a response that is missing or incomplete."""
    if isinstance(exc, httpx.DecodingError):
        return ProtocolError(f"{base_url} does not answer as this API does: {exc}")
    if isinstance(exc, httpx.UnsupportedProtocol):
        return ClientError(f"'{base_url}' is not an address of the API: it must begin with http:// or https://")
    return Unreachable(f"cannot reach the API at {base_url}{through_proxy(httpx.URL(base_url))}: {reason(exc)}")


def reason(exc: httpx.RequestError) -> str:
    """Return in a few words why a request got no complete response."""
    return str(exc) or ("timed out" if isinstance(exc, httpx.TimeoutException) else type(exc).__name__)


def raise_for_error(response: httpx.Response, base_url: str) -> None:
    """Raise Busy or ApiError for an error response, whose body must have been read."""
    status = response.status_code
    if status < HTTPStatus.BAD_REQUEST:
        return
    try:
        problem = from_json(response.content, Problem)
    except msgspec.DecodeError:
        # A proxy between the client and the API answers in its own format.
        problem = Problem(detail=f"{base_url} answered with HTTP status {status}")
    if status in BUSY:
        raise Busy(problem.detail, _retry_after_s(response))
    raise refusal(status, problem)


def refusal(status: int, problem: Problem) -> ApiError:
    """Return a problem of the API as an exception."""
    return ApiError(
        status,
        problem.detail,
        kind=problem.type,
        field=problem.field,
        run_status=problem.run_status,
        missing=problem.missing,
        open_requests=problem.open_requests,
    )


def check_stored(response: httpx.Response, path: str, expected: HTTPStatus) -> None:
    """Raise Unreachable, ApiError or ProtocolError unless the object store answered with the expected status.

    The body of an error response must have been read.
    """
    status = response.status_code
    if status == expected:
        return
    if not response.is_error:
        raise ProtocolError(f"the object store answered with HTTP status {status} for '{path}'")
    code = _STORE_CODE.search(response.text)
    message = f"the object store refused '{path}'" + (f": {code[1]}" if code else "")
    if code and code[1] in _CHANGED:
        message += ", so it was changed while it was sent"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Unreachable(message)
    raise ApiError(status, message)


def raise_for_redirect(response: httpx.Response, base_url: str) -> None:
    """Raise ProtocolError for a redirect, and name where it leads. The token is not sent to another address."""
    status = response.status_code
    if not HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return
    message = f"{base_url} does not answer as this API does: HTTP status {status}"
    if location := response.headers.get("location"):
        # Without the query and the password of the target, which can be secrets.
        target = response.url.join(location).copy_with(username=None, password=None, query=None, fragment=None)
        message += f", a redirect to {target}"
        message += "; redirects are not followed, so the address of the API must be the final one"
    raise ProtocolError(message)


def _retry_after_s(response: httpx.Response) -> float:
    text: Any = response.headers.get("retry-after", "")
    if text.isdecimal():
        return min(MAX_RETRY_AFTER_S, float(text))
    until = _http_date(text)
    if until is None:
        return 0.0  # absent or garbage: the backoff alone applies
    # By the server's own clock, if it tells it: the one of this machine may be wrong by hours.
    now = _http_date(response.headers.get("date", ""))
    return min(MAX_RETRY_AFTER_S, max(0.0, until - (time.time() if now is None else now)))


def _http_date(text: str) -> float | None:
    """Return a date of HTTP in any of its three forms as seconds since the epoch, None for other text."""
    try:
        # The form of asctime has no zone; HTTP means UTC.
        return parsedate_to_datetime(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def retry_pause_s(state: RetryCallState) -> float:
    """Return the pause before the next try of a request in seconds, for tenacity."""
    failure = state.outcome.exception() if state.outcome else None
    retry_after_s = failure.retry_after_s if isinstance(failure, Busy) else 0.0
    return max(retry_after_s, pause_s(state.attempt_number))


def pause_s(tries: int) -> float:
    """Return the pause after a number of failed tries in seconds: random, and doubled with each."""
    return min(FIRST_PAUSE_S * 2.0**tries, MAX_PAUSE_S) * random.random()  # noqa: S311
