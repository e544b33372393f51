"""HTTP to the API: send one request, retry it where that may help, decode the response."""

import math
import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
import msgspec
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from swissbrain.environment import open_client
from swissbrain.errors import ApiError, ClientError, ProtocolError, Unreachable
from swissbrain.models import Problem
from swissbrain.request import Request

T = TypeVar("T")

ATTEMPTS = 5
MAX_RETRY_AFTER_S = 30.0
MAX_IDLE_CONNECTIONS = 20
BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, 503, HTTPStatus.GATEWAY_TIMEOUT})

_VISIBLE_ASCII = re.compile("[!-~]+")
_backoff = wait_random_exponential(multiplier=0.2, max=5.0)


class Busy(Unreachable):
    """Response of an API that is overloaded or restarting; `retry_after_s` is the wait it asks for in seconds, or 0."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Transport:
    """Sender of requests with the bearer token. Retries every request, because each endpoint allows a repetition."""

    def __init__(self, base_url: str, token: str, timeout_s: float) -> None:
        self.base_url = base_url.rstrip("/")
        try:
            # A user name or password in the address is rejected: error messages name the address and must not hold
            # secrets, and httpx would send the password instead of the token.
            url = httpx.URL(self.base_url)
            if url.userinfo or not _VISIBLE_ASCII.fullmatch(token):
                raise ValueError
            url.host.encode("idna")  # as the resolver does; fails here for labels that are empty or too long
        except (httpx.InvalidURL, ValueError):
            raise ClientError("the API's address or token is malformed") from None
        self.http = open_client(
            url,
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_s,
            # Connections in use are not limited, because each followed log holds one.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE_CONNECTIONS),
        )

    def ask(self, request: Request[T]) -> T:
        """Send a request and return the decoded response. Raises the errors of `send`."""
        response = self.send(request)
        try:
            return msgspec.json.decode(response.content, type=request.response)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ProtocolError(f"{self.base_url} does not answer as this API does: {exc}") from exc

    def send(self, request: Request[Any]) -> httpx.Response:
        """Send a request and return the response, which is no error. Redirects are not followed.

        A redirect is an error, unless the request expects one. Raises ApiError, Unreachable, ProtocolError; ClientError
        for a request that cannot be sent.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(Unreachable), stop=stop_after_attempt(ATTEMPTS), wait=_wait, reraise=True
        )
        try:
            response: httpx.Response = retrying(self._send_once, self._encode(request))
        except ApiError as exc:
            exc.tries = retrying.statistics["attempt_number"]
            raise
        if not (request.redirects and response.status_code == HTTPStatus.TEMPORARY_REDIRECT):
            raise_for_redirect(response, self.base_url)
        return response

    def _encode(self, request: Request[Any]) -> httpx.Request:
        headers = {}
        content = None
        try:
            if request.json is not None:
                headers["Content-Type"] = "application/json"
                # msgspec encodes only dict; the hook converts other mappings.
                body = msgspec.to_builtins(request.json, enc_hook=dict)
                _check_finite(body, "$")
                content = msgspec.json.encode(body)
            if request.key is not None:
                if not _VISIBLE_ASCII.fullmatch(request.key):
                    raise ClientError("an idempotency key consists of visible ASCII characters")
                headers["Idempotency-Key"] = request.key
            return self.http.build_request(
                request.method, request.path, content=content, params=request.params, headers=headers
            )
        except (httpx.InvalidURL, UnicodeEncodeError, RecursionError) as exc:
            raise unsendable(exc) from exc

    def _send_once(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self.http.send(request)
        except httpx.RequestError as exc:
            raise connection_error(self.base_url, exc) from exc
        raise_for_error(response, self.base_url)
        return response

    def close(self) -> None:
        """Close the connections."""
        self.http.close()


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
    reason = "it is not Unicode text" if isinstance(exc, UnicodeError) else exc
    return ClientError(f"the request cannot be sent: {reason}")


def connection_error(base_url: str, exc: httpx.RequestError) -> ClientError:
    """Return the error for a response that is missing or incomplete."""
    if isinstance(exc, httpx.DecodingError):
        return ProtocolError(f"{base_url} does not answer as this API does: {exc}")
    if isinstance(exc, httpx.UnsupportedProtocol):
        return ClientError(f"'{base_url}' is not an address of the API: it must begin with http:// or https://")
    reason = str(exc) or type(exc).__name__
    return Unreachable(f"cannot reach the API at {base_url}: {reason}")


def raise_for_error(response: httpx.Response, base_url: str) -> None:
    """Raise Busy or ApiError for an error response, whose body must have been read."""
    status = response.status_code
    if status < HTTPStatus.BAD_REQUEST:
        return
    try:
        problem = msgspec.json.decode(response.content, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # A proxy between the client and the API answers in its own format.
        problem = Problem(detail=f"{base_url} answered with HTTP status {status}")
    if status in BUSY:
        raise Busy(problem.detail, _retry_after_s(response))
    raise ApiError(status, problem.detail, kind=problem.type, field=problem.field, run_status=problem.run_status)


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


def _wait(state: RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    retry_after_s = failure.retry_after_s if isinstance(failure, Busy) else 0.0
    return max(retry_after_s, _backoff(state))
