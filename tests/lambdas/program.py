"""Streaming function whose application misbehaves as the path selects, in ways in which the API never does."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from edge_api.lambda_stream.loop import serve
from edge_api.lambda_stream.runtime_api import RuntimeApi
from infra.logging import configure

HEADERS = [
    (b"content-type", b"text/plain"),
    (b"set-cookie", b"a=1"),
    (b"vary", b"Origin"),
    (b"set-cookie", b"b=2"),
    (b"Vary", b"Accept"),
]

Rest = Callable[["Answer"], Awaitable[None]]


class Answer:
    """Response to one request."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.receive, self.send = receive, send

    async def begin(self, scope: Scope) -> None:
        await self.send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        body = (await self.receive())["body"].decode()
        await self.piece(f"{scope['method']} {os.environ['_X_AMZN_TRACE_ID']} {body}")

    async def piece(self, text: str) -> None:
        await self.send({"type": "http.response.body", "body": text.encode(), "more_body": True})

    async def end(self) -> None:
        await self.send({"type": "http.response.body"})

    async def disconnected(self) -> None:
        """Wait until the client has disconnected."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


async def fail(_answer: Answer) -> None:
    raise RuntimeError("in the middle")


async def half(_answer: Answer) -> None:
    pass


async def slow(answer: Answer) -> None:
    await answer.disconnected()
    await answer.piece(" left")
    await answer.end()


async def endless(answer: Answer) -> None:
    disconnected = asyncio.create_task(answer.disconnected())
    while not disconnected.done():
        await answer.piece("x" * 1000)
        await asyncio.wait({disconnected}, timeout=0.01)
    await answer.end()


RESTS: dict[str, Rest] = {"/": Answer.end, "/fail": fail, "/half": half, "/slow": slow, "/endless": endless}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond as the path selects."""
    if scope["path"] == "/raise":
        raise RuntimeError("before the first byte")
    if scope["path"] == "/nothing":
        return
    if scope["path"] == "/deaf":
        await asyncio.Event().wait()
    answer = Answer(receive, send)
    await answer.begin(scope)
    await RESTS[scope["path"]](answer)


if __name__ == "__main__":
    configure()
    asyncio.run(serve(application, RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"])))
    sys.exit("serve returned")
