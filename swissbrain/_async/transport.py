"""HTTP to the API: send one request, retry it where that may help, decode the response."""

from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from swissbrain.concurrency import async_sleep
from swissbrain.environment import open_async_client
from swissbrain.errors import ApiError, ProtocolError, Unreachable
from swissbrain.messages import (
    ATTEMPTS,
    check_access,
    connection_error,
    decode,
    encode,
    raise_for_error,
    raise_for_redirect,
    retry_pause_s,
)
from swissbrain.owners import PerOwner, async_owner
from swissbrain.request import Request

T = TypeVar("T")

MAX_IDLE_CONNECTIONS = 20


class AsyncTransport:
    """Sender of requests with the bearer token. Retries every request, because each endpoint allows a repetition."""

    def __init__(self, base_url: str, token: str, timeout_s: float) -> None:
        self.base_url = base_url.rstrip("/")
        self._clients = PerOwner(
            partial(
                open_async_client,
                check_access(self.base_url, token),
                base_url=self.base_url,
                headers={"Authorization": f"Bearer {token}"},
                timeout=timeout_s,
                # Connections in use are not limited, because each followed log holds one.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE_CONNECTIONS),
            )
        )

    @property
    def http(self) -> httpx.AsyncClient:
        """HTTP client with the connections of this process and event loop. Raises ClientError after `close`."""
        return self._clients.get(async_owner())

    async def ask(self, request: Request[T]) -> T:
        """Send a request and return the decoded response. Raises the errors of `send`."""
        return decode((await self.send(request)).content, request, self.base_url)

    async def send(self, request: Request[Any]) -> httpx.Response:
        """Send a request and return the response, which is no error. Redirects are not followed.

        A redirect is an error, unless the request expects one. Raises ApiError, Unreachable, ProtocolError; ClientError
        for a request that cannot be sent.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            stop=stop_after_attempt(ATTEMPTS),
            wait=retry_pause_s,
            sleep=async_sleep,
            reraise=True,
        )
        try:
            response: httpx.Response = await retrying(self._send_once, encode(request, self.http))
        except ApiError as exc:
            exc.tries = retrying.statistics["attempt_number"]
            raise
        if not (request.redirects and response.status_code == HTTPStatus.TEMPORARY_REDIRECT):
            raise_for_redirect(response, self.base_url)
        return response

    async def delete(self, request: Request[None]) -> None:
        """Send a request that deletes something. Raises the errors of `send`, and ProtocolError."""
        try:
            response = await self.send(request)
        except ApiError as exc:
            # After a retry, 404 means success: an earlier try, whose response was lost, has deleted it.
            if exc.status == HTTPStatus.NOT_FOUND and exc.tries > 1:
                return
            raise
        if response.status_code != HTTPStatus.NO_CONTENT:
            raise ProtocolError(f"{self.base_url} does not answer as this API does")

    async def _send_once(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self.http.send(request)
        except httpx.RequestError as exc:
            raise connection_error(self.base_url, exc) from exc
        raise_for_error(response, self.base_url)
        return response

    async def close(self) -> None:
        """Close the connections."""
        http = self._clients.take_last(async_owner())
        if http is not None:
            await http.aclose()
