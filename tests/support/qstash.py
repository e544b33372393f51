"""The stand-in of QStash in the process of a test, destinations that record calls, and nasty deliveries."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx
from qstash import AsyncQStash
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.asgi_server import StreamServer, listen, server_config
from infra.contract.errors import QStashUnavailable
from infra.http_limits import HttpLimits
from infra.qstash import QStash
from infra.qstash_local.app import create_qstash
from infra.qstash_local.settings import QStashLocalSettings
from infra.redis_tcp import RedisTcp
from infra.settings import QStashSettings, RedisTcpSettings
from tests.support.waiting import until

QSTASH_TOKEN = "qstash-token-of-the-tests"
CURRENT_KEY = "sig_current_key_of_the_tests_0123456789"
NEXT_KEY = "sig_next_key_of_the_tests_0123456789"
FAST = 0.001
"""Time scale with which the three retries take 12 ms, 150 ms and 1.8 s."""


def stand_in_settings(redis: RedisTcpSettings, **changes: Any) -> QStashLocalSettings:
    """Return settings with the keys of the tests."""
    fields = {"token": QSTASH_TOKEN, "current_signing_key": CURRENT_KEY, "next_signing_key": NEXT_KEY}
    return QStashLocalSettings(redis=redis, **{**fields, "time_scale": FAST, **changes})


def qstash_settings(url: str, public_url: str) -> QStashSettings:
    """Return the settings of an API at the public URL that uses the stand-in at `url`."""
    return QStashSettings(
        url=url,
        public_url=public_url,
        token=QSTASH_TOKEN,
        current_signing_key=CURRENT_KEY,
        next_signing_key=NEXT_KEY,
    )


class QuietServer(StreamServer):
    """Server that leaves the signal handlers of the test process unchanged."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    """Serve an application on a free port of this process; yield its URL."""
    socket = listen("127.0.0.1", 0)
    port = socket.getsockname()[1]
    limits = HttpLimits(1000)
    server = QuietServer(
        server_config(app, "127.0.0.1", port, limits, timeout_graceful_shutdown=5), app, lambda _app: None, limits
    )
    serving = asyncio.create_task(server.serve([socket]))

    async def started() -> bool:
        return server.started or serving.done()

    await until(started, "the server listens")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving
        socket.close()


@asynccontextmanager
async def stand_in(
    settings: QStashLocalSettings, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[str]:
    """Run the stand-in; yield its URL."""
    redis = RedisTcp(settings.redis)
    async with served(create_qstash(redis, settings, close=redis.close, transport=transport)) as url:
        yield url


@asynccontextmanager
async def sdk(url: str) -> AsyncIterator[AsyncQStash]:
    """Yield the SDK's client of a stand-in."""
    client = AsyncQStash(QSTASH_TOKEN, retry=False, base_url=url)
    yield client
    await client.http._client.aclose()


@dataclass(frozen=True)
class Received:
    """Call that a destination has got."""

    url: str
    method: str
    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        return self.headers["upstash-message-id"]


Answer: TypeAlias = Callable[[Received], Response | Awaitable[Response]]


@dataclass
class Destination:
    """Server that records calls, and answers them as `answer` says."""

    url: str = ""
    calls: list[Received] = field(default_factory=list)
    answer: Answer = lambda _call: Response("ok")

    async def handle(self, request: Request) -> Response:
        raw = request.scope["raw_path"].decode()
        query = request.scope["query_string"].decode()
        url = f"{self.url}{raw}{'?' + query if query else ''}"
        call = Received(url, request.method, dict(request.headers), await request.body())
        self.calls.append(call)
        answer = self.answer(call)
        return answer if isinstance(answer, Response) else await answer

    async def wait_for(self, count: int) -> Sequence[Received]:
        """Return all calls once there are `count`."""

        async def arrived() -> bool:
            return len(self.calls) >= count

        await until(arrived, f"{count} calls arrive")
        return self.calls


@asynccontextmanager
async def destination() -> AsyncIterator[Destination]:
    """Run a destination."""
    made = Destination()
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    async with served(Starlette(routes=[Route("/{path:path}", made.handle, methods=methods)])) as url:
        made.url = url
        yield made


class NastyTransport(httpx.AsyncBaseTransport):
    """Deliveries as bad as the network: `next_faults` names what happens to the next ones, one fault each.

    `duplicate`: it arrives twice. `lost`: it arrives, but its answer does not. `forged`: the destination first gets the
    same call with a wrong signature. `unsigned`: likewise without one. `refused`: it does not arrive. `late`: it
    arrives after 50 ms.
    """

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self.next_faults: list[str] = []
        self.answers: list[tuple[str, int]] = []
        """Fault and status of each answer of the destination."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fault = self.next_faults.pop(0) if self.next_faults else ""
        if fault == "refused":
            raise httpx.ConnectError("refused by the test")
        if fault == "late":
            await asyncio.sleep(0.05)
        if fault in {"forged", "unsigned"}:
            changed = dict(request.headers)
            signature = changed.pop("upstash-signature")
            if fault == "forged":
                head, claims, mac = signature.split(".")
                changed["upstash-signature"] = f"{head}.{claims}.{mac[:-4]}AAAA"
            await self._sent(
                httpx.Request(request.method, request.url, headers=changed, content=request.content), fault
            )
        if fault == "duplicate":
            await self._sent(
                httpx.Request(request.method, request.url, headers=request.headers, content=request.content), fault
            )
        response = await self._inner.handle_async_request(request)
        self.answers.append(("", response.status_code))
        if fault == "lost":
            await response.aclose()
            raise httpx.ReadError("lost by the test")
        return response

    async def _sent(self, request: httpx.Request, fault: str) -> None:
        response = await self._inner.handle_async_request(request)
        self.answers.append((fault, response.status_code))
        await response.aread()
        await response.aclose()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def wake(url: str) -> None:
    """Let a stand-in look at what is due, after a test has changed the times in Redis."""
    headers = {"Authorization": f"Bearer {QSTASH_TOKEN}", "Upstash-Delay": "1d", "Upstash-Deduplication-Id": "wake"}
    async with httpx.AsyncClient(headers=headers) as http:
        published = await http.post(f"{url}/v2/publish/http://127.0.0.1:1/")
        assert published.status_code in {201, 202}, published.text


class FaultyQStash(QStash):
    """Client whose next calls fail, `before` they arrive or `after`."""

    def __init__(self, settings: QStashSettings) -> None:
        super().__init__(settings)
        self.next_faults: list[str] = []

    async def _call(self, call: Any) -> None:
        fault = self.next_faults.pop(0) if self.next_faults else ""
        if fault != "before":
            await super()._call(call)
        if fault:
            raise QStashUnavailable(f"failed {fault} the call, by the test")
