"""Deadline of an invocation: Lambda kills a process that has not responded by then, and its client gets an error."""

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_api.http.errors import OutOfTime, describe, respond
from infra.logging import log

DISCONNECT_S = 1.0
"""Time before the deadline at which the application receives a disconnect, so that it ends in order."""
CANCEL_S = 0.5
"""Time before the deadline at which an application that has not ended is cancelled, with an error."""


async def call_in_time(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the application for one request. Raises OutOfTime if it does not end before the deadline."""
    context = scope.get("aws.context")
    if context is None:
        return await app(scope, receive, send)
    deadline = asyncio.get_running_loop().time() + context.get_remaining_time_in_millis() / 1000

    async def receive_in_time() -> Message:
        try:
            async with asyncio.timeout_at(deadline - DISCONNECT_S):
                return await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}

    limit = asyncio.timeout_at(deadline - CANCEL_S)
    try:
        async with limit:
            await app(scope, receive_in_time, send)
    except TimeoutError:
        if not limit.expired():
            raise
        log("request.late", level=logging.WARNING, path=scope["path"])
        raise OutOfTime("the function's time is over; the request may have been carried out") from None


class RespondsInTime:
    """ASGI application that responds for one that does not end before the deadline."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one request."""
        has_started = is_open = False

        async def watched_send(message: Message) -> None:
            nonlocal has_started, is_open
            is_open = not has_started or message.get("more_body", False)
            has_started = True
            await send(message)

        try:
            await call_in_time(self._app, scope, receive, watched_send)
        except OutOfTime as exc:
            if not has_started:
                await respond(*describe(exc))(scope, receive, send)
            elif is_open:
                await send({"type": "http.response.body"})
