"""HTTP to the API: one request, tried again while that may help, and one typed answer."""

import re
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
KEPT = 20
"""So many idle connections are kept. There is no limit to those in use: each log that is followed has one."""
BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, 503, HTTPStatus.GATEWAY_TIMEOUT})

_VISIBLE = re.compile("[!-~]+")
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
            # With a password the address would be a secret, and go before the token.
            url = httpx.URL(self.base_url)
            if url.userinfo or not _VISIBLE.fullmatch(token):
                raise ValueError
            url.host.encode("idna")  # as whoever looks it up does, if it has such labels
            self.http = httpx.Client(
                base_url=self.base_url,
                headers={"Authorization": f"Bearer {token}"},
                timeout=timeout_s,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=KEPT),
            )
        except (httpx.InvalidURL, ValueError):
            raise ClientError("the API's address or token is malformed") from None
        except ImportError as exc:
            raise ClientError(f"the proxy that the environment names cannot be used: {exc}") from None

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
        """The answer to a request. Raises as `send` does."""
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
        """The response, which is no error; redirects are not followed.

        Raises ApiError, Unreachable, ProtocolError, and ClientError for what cannot be sent.
        """
        headers = {"Content-Type": "application/json"} if json is not None else {}
        if key is not None:
            if not _VISIBLE.fullmatch(key):
                raise ClientError("an idempotency key is made of visible ASCII characters")
            headers["Idempotency-Key"] = key
        try:
            # Mappings of other kinds than dict go as one.
            content = None if json is None else msgspec.json.encode(json, enc_hook=dict)
            request = self.http.build_request(method, path, content=content, params=params, headers=headers)
        except (httpx.InvalidURL, UnicodeEncodeError, RecursionError) as exc:
            raise unsendable(exc) from exc
        retrying = Retrying(
            retry=retry_if_exception_type(Unreachable), stop=stop_after_attempt(ATTEMPTS), wait=_wait, reraise=True
        )
        try:
            response: httpx.Response = retrying(self._once, request)
        except ApiError as exc:
            exc.tries = retrying.statistics["attempt_number"]
            raise
        return response

    def _once(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self.http.send(request)
        except httpx.RequestError as exc:
            raise failed(self.base_url, exc) from exc
        refuse(response, self.base_url)
        return response

    def close(self) -> None:
        """Close the connections."""
        self.http.close()


def unsendable(exc: Exception) -> ClientError:
    """What it means that no request can be made of something."""
    return ClientError(f"this cannot be sent: {'it is not Unicode text' if isinstance(exc, UnicodeError) else exc}")


def failed(base_url: str, exc: httpx.RequestError) -> ClientError:
    """What it means that there is no whole response."""
    if isinstance(exc, httpx.DecodingError):
        return ProtocolError(f"{base_url} does not answer as this API does: {exc}")
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
    return min(MAX_RETRY_AFTER_S, float(text)) if text.isdecimal() else 0.0


def _wait(state: RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    asked = failure.retry_after_s if isinstance(failure, Busy) else 0.0
    return max(asked, _backoff(state))
