"""One invocation's way through the application: ASGI on one side, an answer that streams to Lambda on the other."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import AsyncExitStack

import msgspec
from starlette.types import ASGIApp, Message, Scope

from edge_api.http.errors import describe, respond
from edge_api.lambda_stream.connection import ConnectionLost
from edge_api.lambda_stream.runtime_api import Invocation, Reply, RuntimeApi
from infra.logging import log

MEDIA_TYPE = "application/vnd.awslambda.http-integration-response"
"""A body of this type begins with its status and headers as JSON, and a delimiter."""
DELIMITER = bytes(8)
LEAVE_S = 1.0
"""So long before Lambda kills the process the application hears that its client has left, and ends in order."""
GIVE_UP_S = 0.5
"""So long before it is killed an application that has not ended is cancelled, and the client told of an error."""


class Incomplete(Exception):
    """The application returned without having answered, or in the middle of its answer."""


class Exchange:
    """Runs the application once, for one request. The answer is sent as it comes, and waits for Lambda to take it."""

    def __init__(self, api: RuntimeApi, invocation: Invocation, scope: Scope, body: bytes) -> None:
        self._api = api
        self._invocation = invocation
        self._scope = scope
        self._request: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._answer = AsyncExitStack()
        self._reply: Reply | None = None
        self._complete = False
        self._lost: ConnectionLost | None = None
        self._left = asyncio.Event()

    async def run(self, app: ASGIApp) -> None:
        """Answer the invocation, with an error if the application fails. Raises ConnectionLost and Refused."""
        async with self._answer:
            failure = await self._call(app)
            if self._lost is None and self._reply is None:
                await respond(*describe(failure))(self._scope, self._receive, self._send)
            if self._lost is not None:
                raise self._lost
            if self._reply is not None and not self._complete:
                await self._reply.end(failure)

    async def _call(self, app: ASGIApp) -> Exception:
        """Run the application within the time there is; how it failed, if its answer is not complete."""
        left_s = self._invocation.get_remaining_time_in_millis() / 1000
        leaving = asyncio.get_running_loop().call_later(left_s - LEAVE_S, self._left.set)
        try:
            async with asyncio.timeout(left_s - GIVE_UP_S):
                await app(self._scope, self._receive, self._send)
        except Exception as exc:  # noqa: BLE001
            log("request.crashed", level=logging.ERROR, error=exc, path=self._scope["path"])
            return exc
        finally:
            leaving.cancel()
        return Incomplete("the application did not complete its answer")

    async def _receive(self) -> Message:
        if self._request is not None:
            request, self._request = self._request, None
            return request
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        """As servers do, take and drop what the application sends when nobody is there any longer."""
        if self._lost is not None:
            return
        try:
            await self._pass_on(message)
        except ConnectionLost as exc:
            self._lost = exc
            self._left.set()

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._reply = await self._answer.enter_async_context(self._api.streaming(self._invocation, MEDIA_TYPE))
            await self._reply.write(_prelude(message["status"], message.get("headers", [])))
        elif self._reply is not None:
            # As servers do: the application answers HEAD as it answers GET.
            if self._scope["method"] != "HEAD":
                await self._reply.write(message.get("body", b""))
            if not message.get("more_body", False):
                self._complete = True
                self._left.set()
                await self._reply.end()


def _prelude(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Status and headers as Lambda wants them: a header that comes several times is one list, but for cookies."""
    plain: dict[str, str] = {}
    cookies: list[str] = []
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key == "set-cookie":
            cookies.append(text)
        else:
            plain[key] = f"{plain[key]}, {text}" if key in plain else text
    return msgspec.json.encode({"statusCode": status, "headers": plain, "cookies": cookies}) + DELIMITER
