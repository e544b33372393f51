"""HTTP calls of QStash v2, as the SDK makes them: publish, schedules, messages, dead letters, events, keys."""

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from infra import asgi
from infra.contract.errors import ContractError, InvalidInput, LimitExceeded, StoreUnavailable
from infra.contract.redis import Redis
from infra.cron import Cron
from infra.qstash_local.delivery import Deliverer, now_ms
from infra.qstash_local.messages import CronSchedule, QueuedMessage
from infra.qstash_local.parsing import parse_call, publication, schedule_id
from infra.qstash_local.representation import dead_letter_json, event_json, message_json, schedule_json
from infra.qstash_local.scheduler import Scheduler
from infra.qstash_local.settings import QStashLocalSettings
from infra.qstash_local.state import MAX_EVENTS, QStashState

MAX_PAGE = 100
DRAIN_S = 5.0
_MAX_DRAINED = 4
_Handler: TypeAlias = Callable[[Request], Awaitable[HttpResponse]]


class QStashApi:
    """Handlers of all calls."""

    def __init__(self, state: QStashState, settings: QStashLocalSettings, wake: Callable[[], None]) -> None:
        self._state = state
        self._settings = settings
        self._wake = wake
        self._bearer = f"Bearer {settings.token}".encode()

    def routes(self) -> list[Route]:
        """Return the routes."""
        rows: list[tuple[str, _Handler, list[str]]] = [
            ("/v2/publish/{destination:path}", self.publish, ["POST"]),
            ("/v2/schedules", self.list_schedules, ["GET"]),
            ("/v2/schedules/{id}", self.show_schedule, ["GET"]),
            ("/v2/schedules/{id}", self.delete_schedule, ["DELETE"]),
            ("/v2/schedules/{id}/pause", self.pause, ["PATCH", "POST"]),
            ("/v2/schedules/{id}/resume", self.resume, ["PATCH", "POST"]),
            ("/v2/schedules/{destination:path}", self.create_schedule, ["POST"]),
            ("/v2/messages/{id}", self.show_message, ["GET"]),
            ("/v2/messages/{id}", self.cancel, ["DELETE"]),
            ("/v2/dlq", self.list_dead, ["GET"]),
            ("/v2/dlq/{id}", self.show_dead, ["GET"]),
            ("/v2/dlq/{id}", self.delete_dead, ["DELETE"]),
            ("/v2/events", self.events, ["GET"]),
            ("/v2/keys", self.keys, ["GET"]),
        ]
        guarded = [Route(path, self._guarded(handler), methods=methods) for path, handler, methods in rows]
        return [Route("/health", _health), *guarded]

    async def publish(self, request: Request) -> HttpResponse:
        """`POST /v2/publish/{url}`."""
        wanted = publication(request, "/v2/publish/", await self._body(request))
        message = QueuedMessage(call=wanted.call, created_ms=now_ms(), not_before_ms=wanted.not_before_ms)
        message_id, is_duplicate = await self._state.publish(message, wanted.duplicates)
        self._wake()
        if is_duplicate:
            return _json({"messageId": message_id, "deduplicated": True}, 202)
        return _json({"messageId": message_id}, 201)

    async def create_schedule(self, request: Request) -> HttpResponse:
        """`POST /v2/schedules/{url}`: create a schedule, or replace the one with the same id."""
        call = parse_call(request, "/v2/schedules/", await self._body(request))
        cron = Cron.parse(request.headers.get("upstash-cron", ""))
        now = now_ms()
        # The expression is kept as it was given: QStash answers with it.
        text = request.headers["upstash-cron"].strip()
        schedule = CronSchedule(id=schedule_id(request), cron=text, call=call, created_ms=now)
        await self._state.save_schedule(schedule, cron.after(now))
        self._wake()
        return _json({"scheduleId": schedule.id}, 201)

    async def list_schedules(self, _request: Request) -> HttpResponse:
        """`GET /v2/schedules`."""
        return _json([schedule_json(*pair) for pair in await self._state.schedules()])

    async def show_schedule(self, request: Request) -> HttpResponse:
        """`GET /v2/schedules/{id}`."""
        return _json(schedule_json(*await self._schedule(request)))

    async def delete_schedule(self, request: Request) -> HttpResponse:
        """`DELETE /v2/schedules/{id}`."""
        return _done(await self._state.delete_schedule(_id(request)), "schedule")

    async def pause(self, request: Request) -> HttpResponse:
        """`PATCH /v2/schedules/{id}/pause`."""
        await self._schedule(request)
        await self._state.pause(_id(request))
        return _json({})

    async def resume(self, request: Request) -> HttpResponse:
        """`PATCH /v2/schedules/{id}/resume`."""
        schedule, _ = await self._schedule(request)
        await self._state.resume(schedule.id, Cron.parse(schedule.cron).after(now_ms()))
        self._wake()
        return _json({})

    async def show_message(self, request: Request) -> HttpResponse:
        """`GET /v2/messages/{id}`: only undelivered messages."""
        message = await self._state.message(_id(request))
        return _missing("message") if message is None else _json(message_json(_id(request), message))

    async def cancel(self, request: Request) -> HttpResponse:
        """`DELETE /v2/messages/{id}`."""
        return _done(await self._state.cancel(_id(request)), "message")

    async def list_dead(self, request: Request) -> HttpResponse:
        """`GET /v2/dlq`."""
        count, start = _whole(request, "count", MAX_PAGE, MAX_PAGE), _whole(request, "cursor", 0, 10**9)
        found = await self._state.dead_letters(start, count)
        page = {"messages": [dead_letter_json(*letter) for letter in found]}
        return _json(page | ({"cursor": str(start + count)} if len(found) == count else {}))

    async def show_dead(self, request: Request) -> HttpResponse:
        """`GET /v2/dlq/{id}`."""
        found = await self._state.dead_letter(_id(request))
        return _missing("dead letter") if found is None else _json(dead_letter_json(_id(request), *found))

    async def delete_dead(self, request: Request) -> HttpResponse:
        """`DELETE /v2/dlq/{id}`."""
        return _done(await self._state.delete_dead_letter(_id(request)), "dead letter")

    async def events(self, request: Request) -> HttpResponse:
        """`GET /v2/events`, newest first; of one message or schedule, or in one state."""
        cursor, count = request.query_params.get("cursor"), _whole(request, "count", MAX_PAGE, 1000)
        names = {"messageId": "message_id", "scheduleId": "schedule_id", "state": "state", "url": "url"}
        wanted = {names[name]: value for name, value in request.query_params.items() if name in names}
        found = await self._state.events(cursor, MAX_EVENTS if wanted else count)
        events = [
            event_json(stream_id, event)
            for stream_id, event in found
            if all(getattr(event, name) == value for name, value in wanted.items())
        ]
        more = {"cursor": found[-1][0]} if found and not wanted and len(found) == count else {}
        return _json({"events": events[:count], **more})

    async def keys(self, _request: Request) -> HttpResponse:
        """`GET /v2/keys`."""
        return _json({"current": self._settings.current_signing_key, "next": self._settings.next_signing_key})

    async def _schedule(self, request: Request) -> tuple[CronSchedule, int | None]:
        found = await self._state.schedule(_id(request))
        if found is None:
            raise LookupError("schedule")
        return found

    async def _body(self, request: Request) -> bytes:
        limit = self._settings.max_body_bytes
        body = await asgi.read_body(request.scope, request.receive, limit_bytes=limit, drain_bytes=_MAX_DRAINED * limit)
        if body is None:
            raise LimitExceeded(f"the body is larger than {limit} bytes")
        return body

    def _guarded(self, handler: _Handler) -> _Handler:
        """Return the handler behind the check of the token, with its errors as responses."""

        async def guarded(request: Request) -> HttpResponse:
            given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, self._bearer):
                return _error(401, "the token is missing or wrong")
            try:
                return await handler(request)
            except InvalidInput as exc:
                return _error(400, f"{exc.field}: {exc}" if exc.field else str(exc))
            except LimitExceeded as exc:
                return _error(413 if "body" in str(exc) else 429, str(exc))
            except LookupError as exc:
                return _missing(str(exc.args[0]))
            except StoreUnavailable:
                return _error(503, "the store does not answer; the request may have been carried out")
            except ContractError as exc:
                return _error(502, f"the store failed: {exc}")

        return guarded


def create_qstash(
    redis: Redis,
    settings: QStashLocalSettings,
    *,
    close: Callable[[], Awaitable[None]] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """Return the application; its lifespan runs the deliveries, and calls `close` at its end.

    `transport` carries the deliveries, by default over the network.
    """
    state = QStashState(redis, settings)
    limits = httpx.Limits(max_connections=settings.concurrency, max_keepalive_connections=0)
    client = httpx.AsyncClient(transport=transport, limits=limits, timeout=None, follow_redirects=False)  # noqa: S113
    scheduler = Scheduler(state, Deliverer(client, settings), settings)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.create_task(scheduler.run(), name="qstash scheduler")
        try:
            yield
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await scheduler.drain(DRAIN_S)
            await client.aclose()
            if close is not None:
                await close()

    app = Starlette(routes=QStashApi(state, settings, scheduler.wake).routes(), lifespan=lifespan)
    app.router.redirect_slashes = False
    app.state.scheduler = scheduler
    return app


async def _health(_request: Request) -> HttpResponse:
    return _json({"status": "up"})


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _whole(request: Request, name: str, default: int, high: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        raise InvalidInput("must be a number", name)
    return min(int(text), high)


def _json(value: object, status: int = 200) -> HttpResponse:
    return HttpResponse(msgspec.json.encode(value), status, media_type="application/json")


def _done(done: bool, noun: str) -> HttpResponse:
    return HttpResponse(status_code=202) if done else _missing(noun)


def _missing(noun: str) -> HttpResponse:
    return _error(404, f"there is no such {noun}")


def _error(status: int, message: str) -> HttpResponse:
    body: Mapping[str, Any] = {"error": message}
    return _json(body, status)
