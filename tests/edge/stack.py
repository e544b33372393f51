"""An API server on a free port of this process, clients of its users, and a simulated worker."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import ServerSentEvent, aconnect_sse
from msgspec import json
from starlette.applications import Starlette

from edge_api.__main__ import create_server
from edge_api.app import create_app, end_streams
from edge_api.auth.api_keys import ApiKeys
from edge_api.ports import WorkspaceStore
from edge_api.schedules_service import Scheduling
from edge_api.settings import ApiKey, ApiSettings, ServerSettings
from edge_api.webhooks_service import Webhooks, WebhookService
from infra.asgi_server import StreamServer, listen
from infra.contract.files import FileEntry
from infra.contract.log import TERMINAL_EVENT, LogFeed, NewEvent
from infra.contract.queue import Lease, Writes
from infra.contract.redis import Redis
from infra.contract.requests import OpenRequest
from infra.contract.states import Outcome, Status
from infra.contract.webhooks import EventSink
from infra.redis_rest import RedisRest
from infra.redis_tcp import RedisTcp
from infra.settings import RedisRestSettings
from infra.workspace import WorkspaceLimits
from tests.support.archive import NoArchive
from tests.support.requests import question
from tests.support.run_store import RunStore
from tests.support.waiting import until

TOKENS = {
    "ada": "token-of-ada",
    "bob": "token-of-bob",
    "reader": "token-of-a-reader",
    "writer": "token-of-a-writer",
    "approver": "token-of-an-approver",
}
SCOPES = {
    "ada": ["runs:read", "runs:write", "runs:approve"],
    "bob": ["runs:read", "runs:write"],
    "reader": ["runs:read"],
    "writer": ["runs:write"],
    "approver": ["runs:read", "runs:approve"],
}
KEYS = [ApiKey(user, SCOPES[user], hashlib.sha256(token.encode()).hexdigest()) for user, token in TOKENS.items()]
STREAM_KEY = "stream-token-key-of-the-tests-" + "k" * 40
PLAN = {"plan": [{"tool": "message", "args": {"text": "hello"}}]}


@dataclass
class Files:
    """Object store without files, for tests that are not about files."""

    deleted: list[tuple[str, str]] = field(default_factory=list)
    logs: NoArchive = field(default_factory=NoArchive)

    limits: WorkspaceLimits = field(default_factory=WorkspaceLimits)

    def new_upload(self, path: str, size_bytes: int, sha256: str) -> FileEntry:
        raise AssertionError("no test uploads a file here")

    def upload_headers(self, size_bytes: int, sha256: str, md5: str | None) -> dict[str, str]:
        raise AssertionError("no test uploads a file here")

    async def presign_put(self, user_id: str, run_id: str, key: str, expires_s: int, headers: Mapping[str, str]) -> str:
        raise AssertionError("no test uploads a file here")

    async def missing(self, user_id: str, run_id: str, files: Mapping[str, FileEntry]) -> list[str]:
        raise AssertionError("no test uploads a file here")

    def link_type(self, path: str, *, inline: bool) -> str:
        return "application/octet-stream"

    async def presign_get(
        self, user_id: str, run_id: str, path: str, entry: FileEntry, expires_s: int, *, inline: bool = False
    ) -> str:
        raise AssertionError("there is no file to link to")

    async def delete_run(self, user_id: str, run_id: str) -> int:
        self.deleted.append((user_id, run_id))
        return 0


class CountingFeed:
    """Feed that counts the open subscriptions, and all that were opened."""

    def __init__(self, feed: LogFeed) -> None:
        self._feed = feed
        self.opened = 0
        self.open = 0

    @asynccontextmanager
    async def subscribe(self, channel: str) -> AsyncIterator[AsyncIterator[str]]:
        self.opened += 1
        self.open += 1
        try:
            async with self._feed.subscribe(channel) as messages:
                yield messages
        finally:
            self.open -= 1


class _QuietServer(StreamServer):
    """Server that leaves the signal handlers of the test process unchanged."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class Edge:
    """A running API."""

    app: Starlette
    url: str
    feed: CountingFeed
    server: StreamServer
    files: Any

    @property
    def streams(self) -> int:
        return len(self.app.state.streams)


@asynccontextmanager
async def serve(
    rest: RedisRestSettings,
    files: WorkspaceStore,
    settings: ApiSettings | None = None,
    feed: LogFeed | None = None,
    scheduling: Callable[[Redis, str], Scheduling] | None = None,
    webhooks: Callable[[Redis, str], Webhooks] | None = None,
) -> AsyncIterator[Edge]:
    """Run the API on a free port; `scheduling` and `webhooks` get its URL. At the end no subscription may be open."""
    redis = RedisRest(rest)
    counting = CountingFeed(feed or redis)
    settings = settings or ApiSettings(stream_ping_s=0.5, stream_token_keys=(STREAM_KEY,))
    socket = listen("127.0.0.1", 0)
    port = socket.getsockname()[1]
    parts = scheduling(redis, f"http://127.0.0.1:{port}") if scheduling else None
    hooks = webhooks(redis, f"http://127.0.0.1:{port}") if webhooks else None
    app = create_app(
        RunStore(redis, events=hooks.publisher if hooks else None),
        counting,
        files,
        ApiKeys(KEYS),
        settings,
        scheduling=parts,
        webhooks=WebhookService(hooks),
        close=redis.close,
    )
    made = create_server(app, ServerSettings("127.0.0.1", port))
    server = _QuietServer(made.config, app, end_streams, made.server_state.limits)
    serving = asyncio.create_task(server.serve([socket]))

    async def started() -> bool:
        return server.started

    await until(started, "the API listens")
    try:
        yield Edge(app, f"http://127.0.0.1:{port}", counting, server, files)
    finally:
        server.should_exit = True
        await serving
        socket.close()
    assert counting.open == 0
    assert len(app.state.streams) == 0


@asynccontextmanager
async def client(edge: Edge, user: str | None) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the user, or a client without a token if `user` is None."""
    headers = {"Authorization": f"Bearer {TOKENS[user]}"} if user else {}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=edge.url, headers=headers, timeout=20, limits=limits) as http:
        yield http


async def create(http: httpx.AsyncClient, **fields: Any) -> str:
    """Create a run, started unless `start` is False, and return its id."""
    answer = await http.post("/agent/runs", json={**PLAN, **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["run_id"])


@asynccontextmanager
async def stream(
    http: httpx.AsyncClient, run_id: str, after: int | None = None
) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    """Yield the events of a run's stream. `after` is sent as Last-Event-ID."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    url = f"/agent/logs/{run_id}/stream"
    async with aconnect_sse(http, "GET", url, headers=headers) as source:
        assert source.response.status_code == 200, source.response.status_code
        yield source.aiter_sse()


async def follow(http: httpx.AsyncClient, run_id: str, after: int | None = None) -> list[ServerSentEvent]:
    """Return all events of a stream, up to its end."""
    async with stream(http, run_id, after) as events:
        return [event async for event in events]


async def follow_to_the_end(http: httpx.AsyncClient, run_id: str, after: int = 0) -> list[ServerSentEvent]:
    """Return all events of a log, like an EventSource: reconnect with the last id until the `end` event."""
    seen: list[ServerSentEvent] = []
    while not seen or seen[-1].event != "end":
        answered = await follow(http, run_id, after)
        seen += answered
        after = int(answered[-1].id or after) if answered else after
    return seen


def numbers(events: Sequence[ServerSentEvent]) -> list[int]:
    """Return the sequence numbers of the unnamed events."""
    return [json.decode(event.data)["seq"] for event in events if event.event == "message"]


def note(number: int = 0, **data: Any) -> NewEvent:
    return NewEvent(ts=int(time.time() * 1000), type="log", step=0, data={"n": number, **data})


def finished(status: Status = Status.SUCCEEDED) -> NewEvent:
    return NewEvent(ts=int(time.time() * 1000), type=TERMINAL_EVENT, data={"status": status.value})


class SimulatedWorker:
    """Worker that writes a run's log and status without executing anything."""

    def __init__(self, redis: RedisTcp, events: EventSink | None = None) -> None:
        self.redis = redis
        self.store = RunStore(redis, events=events)

    async def claim(self) -> Lease:
        (claim,) = (await self.store.claim("simulated", 1, lease_ms=60_000)).claims
        return Lease(claim.run.id, claim.run.fence, claim.run.user)

    async def emit(self, lease: Lease, *events: NewEvent, files: dict[str, FileEntry | None] | None = None) -> None:
        reply = await self.store.emit(lease, Writes(events=[*events], files=files or {}))
        assert reply.outcome is Outcome.OK
        lease.batch += 1

    async def finish(self, lease: Lease, status: Status = Status.SUCCEEDED) -> None:
        outcome = await self.store.finish(lease, status, Writes(events=[finished(status)]), result={"answer": 42})
        assert outcome is Outcome.OK

    async def wait(self, lease: Lease, *requests: OpenRequest) -> None:
        assert await self.store.wait(lease, Writes(), requests or [question()]) is Outcome.OK

    async def complete(self, events: int = 3, status: Status = Status.SUCCEEDED) -> Lease:
        """Claim the next run, log `events` notes and finish it."""
        lease = await self.claim()
        for number in range(1, events + 1):
            await self.emit(lease, note(number))
        await self.finish(lease, status)
        return lease

    async def size(self) -> int:
        """Return the number of keys in the database."""
        return int(str(await self.redis.command("DBSIZE")))
