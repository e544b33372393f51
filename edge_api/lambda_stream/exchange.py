"""One invocation: the application over ASGI on one side, a streaming response to Lambda on the other."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import AsyncExitStack

import msgspec
from starlette.types import ASGIApp, Message, Scope

from edge_api.http.errors import OutOfTime, describe, respond
from edge_api.lambda_deadline import call_in_time
from edge_api.lambda_stream.connection import ConnectionLost
from edge_api.lambda_stream.runtime_api import Invocation, ResponseStream, RuntimeApi
from infra.logging import log

MEDIA_TYPE = "application/vnd.awslambda.http-integration-response"
"""Media type of a body that begins with its status and headers as JSON, followed by the delimiter."""
DELIMITER = bytes(8)


class Incomplete(Exception):
    """The application returned before its response was complete. Clients see the class name as the error type."""


class HttpExchange:
    """Runs the application for one request. Sends each part of the response once Lambda has taken the previous part."""

    def __init__(self, api: RuntimeApi, invocation: Invocation, scope: Scope, body: bytes) -> None:
        self._api = api
        self._invocation = invocation
        self._scope = scope
        self._request: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._open_stream = AsyncExitStack()
        self._response: ResponseStream | None = None
        self._complete = False
        self._lost: ConnectionLost | None = None
        self._disconnected = asyncio.Event()

    async def run(self, app: ASGIApp) -> None:
        """Respond to the invocation, with an error if the application fails.

        Raises ConnectionLost and RuntimeApiRejected.
        """
        async with self._open_stream:
            failure = await self._call(app)
            if self._lost is None and self._response is None:
                await respond(*describe(failure))(self._scope, self._receive, self._send)
            if self._lost is not None:
                raise self._lost
            if self._response is not None and not self._complete:
                await self._response.end(failure)

    async def _call(self, app: ASGIApp) -> Exception:
        """Run the application within the remaining time. Return its failure, used if the response is not complete."""
        try:
            await call_in_time(app, self._scope, self._receive, self._send)
        except OutOfTime as exc:
            return exc
        except Exception as exc:  # noqa: BLE001
            log("request.crashed", level=logging.ERROR, error=exc, path=self._scope["path"])
            return exc
        return Incomplete("the application did not complete its response")

    async def _receive(self) -> Message:
        if self._request is not None:
            request, self._request = self._request, None
            return request
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        # After a lost connection, messages are dropped silently, as servers do when the client has left.
        if self._lost is not None:
            return
        try:
            await self._forward(message)
        except ConnectionLost as exc:
            self._lost = exc
            self._disconnected.set()

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._response = await self._open_stream.enter_async_context(
                self._api.streaming(self._invocation, MEDIA_TYPE)
            )
            await self._response.write(_prelude(message["status"], message.get("headers", [])))
        elif self._response is not None:
            # As servers do, drop the body of a response to HEAD: the application responds to HEAD as to GET.
            if self._scope["method"] != "HEAD":
                await self._response.write(message.get("body", b""))
            if not message.get("more_body", False):
                self._complete = True
                self._disconnected.set()
                await self._response.end()


def _prelude(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return status and headers as Lambda expects them: repeated headers are joined, except for cookies."""
    plain: dict[str, str] = {}
    cookies: list[str] = []
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key == "set-cookie":
            cookies.append(text)
        else:
            plain[key] = f"{plain[key]}, {text}" if key in plain else text
    return msgspec.json.encode({"statusCode": status, "headers": plain, "cookies": cookies}) + DELIMITER
