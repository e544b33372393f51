"""State and description of the service."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import ApiEndpoint
from edge_api.http.errors import describe, respond
from edge_api.http.principal import Principal
from edge_api.http.responses import ok
from edge_api.http.service_models import Health, Identity
from edge_api.settings import READ_RUNS
from infra.contract.errors import ContractError
from infra.contract.queue import QueueDepths
from infra.contract.redis_store.commands import RunCommands
from infra.logging import log

READY_S = 2.0
"""Oldest result that `/ready` answers with, in seconds."""


class Readiness:
    """Whether Redis can be used, checked at most once in READY_S, because anybody may ask."""

    def __init__(self, store: RunCommands, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = asyncio.Lock()
        self._checked_at = -READY_S
        self._failure: ContractError | None = None

    async def failure(self) -> ContractError | None:
        """Return why requests cannot be served, or None; at most READY_S old."""
        # One check at a time: those who come meanwhile get its result.
        async with self._lock:
            if self._clock() - self._checked_at >= READY_S:
                await self._renew()
            return self._failure

    async def _renew(self) -> None:
        self._failure = None
        try:
            await self._store.ping()
        except ContractError as exc:
            self._failure = exc.with_traceback(None)
            log("ready.failed", level=logging.WARNING, reason=f"{type(exc).__name__}: {exc}")
        self._checked_at = self._clock()


class SystemRoutes:
    """Health, readiness, queue depths, and the descriptions of the API and of the events."""

    def __init__(self, store: RunCommands, describe: Callable[[], bytes], describe_events: Callable[[], bytes]) -> None:
        self._store = store
        self._readiness = Readiness(store)
        self._describe = describe
        self._describe_events = describe_events

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "GET",
                "/agent/queue",
                self.queue,
                READ_RUNS,
                operation_id="getQueue",
                summary="Count the runs in each part of the queue.",
                success={200: QueueDepths},
            ),
            ApiEndpoint(
                "GET",
                "/agent/whoami",
                self.whoami,
                operation_id="whoAmI",
                summary="Show the user and the scopes of the token.",
                success={200: Identity},
            ),
            ApiEndpoint(
                "GET",
                "/health",
                self.health,
                public=True,
                operation_id="health",
                summary="The process is up.",
                success={200: Health},
            ),
            ApiEndpoint(
                "GET",
                "/ready",
                self.ready,
                public=True,
                operation_id="ready",
                summary="Redis can be reached and accepts changes; at most 2 s old.",
                success={200: Health},
                errors=[502, 503, 507],
            ),
            ApiEndpoint(
                "GET",
                "/openapi.json",
                self.openapi,
                public=True,
                operation_id="openapi",
                summary="This description.",
                success={200: dict[str, Any]},
            ),
            ApiEndpoint(
                "GET",
                "/events.schema.json",
                self.event_schema,
                operation_id="eventSchema",
                summary="The JSON Schema of one event of a log; `x-events` has the data of each type.",
                success={200: dict[str, Any]},
            ),
        ]

    async def health(self, _request: Request, _principal: Principal) -> Response:
        """`GET /health`: 200 while the process is up, whether or not Redis and the object store can be reached."""
        return ok(Health(status="ok"))

    async def ready(self, _request: Request, _principal: Principal) -> Response:
        """`GET /ready`: 200 if Redis can be reached and accepts changes."""
        if failure := await self._readiness.failure():
            return respond(*describe(failure))
        return ok(Health(status="ready"))

    async def queue(self, _request: Request, _principal: Principal) -> Response:
        """`GET /agent/queue`: number of runs in each part of the queue, of all users."""
        return ok(await self._store.depths())

    async def whoami(self, _request: Request, principal: Principal) -> Response:
        """`GET /agent/whoami`: user and scopes of the token."""
        return ok(Identity(user=principal.user, scopes=sorted(principal.scopes)))

    async def openapi(self, _request: Request, _principal: Principal) -> Response:
        """`GET /openapi.json`."""
        return Response(self._describe(), media_type="application/json")

    async def event_schema(self, _request: Request, _principal: Principal) -> Response:
        """`GET /events.schema.json`."""
        return Response(self._describe_events(), media_type="application/json")
