"""Function URL: HTTP in front of a function, with one execution environment for each concurrent request."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from tests.lambdas.call import Call
from tests.lambdas.environment import Environment
from tests.lambdas.events import function_url_event
from tests.support.waiting import until

New = Callable[[], AbstractAsyncContextManager[Environment]]


class _QuietServer(uvicorn.Server):
    """Server that leaves the signal handlers of the test process unchanged."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class FunctionUrl:
    """ASGI application that passes a streamed response on as it arrives, and any other response when it is complete.

    A function does not notice that its client has disconnected: as on Lambda, it runs, and is billed, to its end.
    """

    def __init__(self, new: New, stack: AsyncExitStack) -> None:
        self._new = new
        self._stack = stack
        self._ending: set[asyncio.Task[None]] = set()
        self.url = ""
        self.idle: list[Environment] = []
        self.environments: list[Environment] = []
        self.calls: list[Call] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = await self._invoke(await _event(scope, receive))
        if await call.begun():
            await self._forward(call, send)
        elif await call.ended() == "answered":
            await _send_complete(await call.head(), send)
        else:
            await _answer(send, 502, {"content-type": "application/json"}, b'{"Message":null}')

    async def _invoke(self, event: object) -> Call:
        if not self.idle:
            made = await self._stack.enter_async_context(self._new())
            self.environments.append(made)
            self.idle.append(made)
        environment = self.idle.pop()
        call = await environment.invoke(event)
        self.calls.append(call)
        task = asyncio.create_task(self._release(environment, call))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return call

    async def _release(self, environment: Environment, call: Call) -> None:
        await call.ended()
        self.idle.append(environment)

    async def _forward(self, call: Call, send: Send) -> None:
        head = await call.head()
        headers = [(name.encode(), value.encode()) for name, value in head["headers"].items()]
        headers += [(b"set-cookie", cookie.encode()) for cookie in head["cookies"]]
        await send({"type": "http.response.start", "status": head["statusCode"], "headers": headers})
        async for part in call.content():
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if call.outcome == "answered":
            await send({"type": "http.response.body"})

    async def close(self) -> None:
        """Cancel the invocations that still run; their environments are killed."""
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)


async def _event(scope: Scope, receive: Receive) -> object:
    body = b""
    message: Message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    query = scope["query_string"].decode()
    return function_url_event(scope["method"], scope["path"] + (f"?{query}" if query else ""), headers, body)


async def _send_complete(answer: dict[str, object], send: Send) -> None:
    body = str(answer["body"]).encode()
    headers = answer["headers"]
    assert isinstance(headers, dict)
    await _answer(
        send, int(str(answer["statusCode"])), headers, base64.b64decode(body) if answer["isBase64Encoded"] else body
    )


async def _answer(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def function_url(new: New) -> AsyncIterator[FunctionUrl]:
    """Run a function URL on a free port. `new` creates an execution environment."""
    async with AsyncExitStack() as stack:
        front = FunctionUrl(new, stack)
        config = uvicorn.Config(front, host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none")
        server = _QuietServer(config)
        serving = asyncio.create_task(server.serve())

        async def started() -> bool:
            return server.started

        await until(started, "the function URL listens")
        front.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield front
        finally:
            await front.close()
            server.force_exit = server.should_exit = True
            await serving
