"""HTTP to the API: one request, tried again while that may help, and one typed answer."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
import msgspec
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from swissbrain.errors import ApiError, ClientError, ProtocolError, Unreachable
from swissbrain.models import Problem

T = TypeVar("T")

ATTEMPTS = 5
MAX_RETRY_AFTER_S = 30.0
BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, 503, HTTPStatus.GATEWAY_TIMEOUT})

_backoff = wait_random_exponential(multiplier=0.2, max=5.0)


class Busy(Unreachable):
    """The API asks to come back later, after `retry_after_s` seconds if it says so."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Transport:
    """Sends requests with the token. All that this API offers may be sent twice, so all of it is tried again."""

    def __init__(self, base_url: str, token: str, timeout_s: float) -> None:
        self.base_url = base_url.rstrip("/")
        try:
            self.http = httpx.Client(
                base_url=self.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout_s
            )
        except (httpx.InvalidURL, UnicodeEncodeError, ValueError):
            raise ClientError("the API's address or token is malformed") from None

    def ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> T:
        """The answer to a request. Raises ApiError, Unreachable, ProtocolError."""
        response = self.send(method, path, json=json, params=params, key=key)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ProtocolError(f"{self.base_url} does not answer as this API does: {exc}") from exc

    def send(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        """The response, which is no error; redirects are not followed. Raises ApiError, Unreachable."""
        headers = {"Content-Type": "application/json"} if json is not None else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        content = None if json is None else msgspec.json.encode(json)
        request = self.http.build_request(method, path, content=content, params=params, headers=headers)
        retrying = Retrying(
            retry=retry_if_exception_type(Unreachable), stop=stop_after_attempt(ATTEMPTS), wait=_wait, reraise=True
        )
        response: httpx.Response = retrying(self._once, request)
        return response

    def _once(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self.http.send(request)
        except httpx.TransportError as exc:
            raise unreachable(self.base_url, exc) from exc
        refuse(response, self.base_url)
        return response

    def close(self) -> None:
        """Close the connections."""
        self.http.close()


def unreachable(base_url: str, exc: httpx.TransportError) -> ClientError:
    """What a failure below HTTP means."""
    if isinstance(exc, httpx.UnsupportedProtocol):
        return ClientError(f"'{base_url}' is not an address of the API: it must begin with http:// or https://")
    reason = str(exc) or type(exc).__name__
    return Unreachable(f"cannot reach the API at {base_url}: {reason}")


def refuse(response: httpx.Response, base_url: str) -> None:
    """Raise what an error response means; its body must have been read."""
    status = response.status_code
    if status < HTTPStatus.BAD_REQUEST:
        return
    try:
        problem = msgspec.json.decode(response.content, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = Problem(detail=f"{base_url} answered with HTTP status {status}")
    if status in BUSY:
        raise Busy(problem.detail, _retry_after_s(response))
    raise ApiError(status, problem.detail, kind=problem.type, field=problem.field, run_status=problem.run_status)


def _retry_after_s(response: httpx.Response) -> float:
    text: Any = response.headers.get("retry-after", "")
    return min(MAX_RETRY_AFTER_S, float(text)) if text.isdigit() else 0.0


def _wait(state: RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    asked = failure.retry_after_s if isinstance(failure, Busy) else 0.0
    return max(asked, _backoff(state))
