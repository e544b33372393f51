"""Calls of QStash. They carry no bearer token but a signature, which is checked before anything else is done."""

import logging
import re
import time
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import ApiEndpoint
from edge_api.http.errors import UNRETRYABLE, BadRequest
from edge_api.http.parsing import read_body
from edge_api.http.principal import Principal
from edge_api.http.responses import ok
from edge_api.http.schedule_models import RecoveryResult, TickResult
from edge_api.http.webhook_models import DeliverBody, DeliveryResult
from edge_api.metering import queue_met
from edge_api.schedules_service import ScheduleService, TickBody
from edge_api.webhooks_service import WebhookService
from infra.contract.errors import CallRejected
from infra.contract.redis_store.commands import RunCommands
from infra.contract.schedules import RECOVERY_PATH, TICK_PATH
from infra.contract.webhooks import DELIVER_PATH
from infra.http_limits import LogInterval
from infra.logging import log

MAX_CALL_BYTES = 4096
_NUMBER = re.compile(r"[0-9]{1,4}")
_SIGNATURE: dict[str, object] = {
    "name": "Upstash-Signature",
    "in": "header",
    "required": True,
    "description": "Signature of QStash over the URL and the body.",
    "schema": {"type": "string"},
}
_ERRORS = (401, 413, 501, 502, 503)


class InternalRoutes:
    """Endpoints that only QStash calls."""

    def __init__(self, store: RunCommands, schedules: ScheduleService, webhooks: WebhookService) -> None:
        self._store = store
        self._schedules = schedules
        self._webhooks = webhooks
        self._rejected = LogInterval()

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "POST",
                TICK_PATH,
                self.tick,
                public=True,
                operation_id="scheduleTick",
                summary="Called by QStash when a schedule is due.",
                success={200: TickResult},
                errors=[*_ERRORS, 400],
                body=TickBody,
                headers=[_SIGNATURE],
            ),
            ApiEndpoint(
                "POST",
                RECOVERY_PATH,
                self.recover,
                public=True,
                operation_id="recover",
                summary="Called by QStash: recovers runs while there are no workers.",
                success={200: RecoveryResult},
                errors=_ERRORS,
                headers=[_SIGNATURE],
            ),
            ApiEndpoint(
                "POST",
                DELIVER_PATH,
                self.deliver,
                public=True,
                operation_id="deliverWebhook",
                summary="Called by QStash for an event of a run, which is posted to its webhook.",
                success={200: DeliveryResult},
                errors=[*_ERRORS, 400, 424, UNRETRYABLE],
                body=DeliverBody,
                headers=[_SIGNATURE],
            ),
        ]

    async def tick(self, request: Request, _principal: Principal) -> Response:
        """`POST /internal/schedule-tick`."""
        body = await self._checked_body(request, TICK_PATH)
        message_id = request.headers.get("upstash-message-id", "")
        if not message_id:
            raise BadRequest("the header 'Upstash-Message-Id' is missing")
        try:
            wanted = msgspec.json.decode(body, type=TickBody)
        except msgspec.DecodeError as exc:
            raise BadRequest(f"the body is not that of a tick: {exc}") from exc
        return ok(await self._schedules.tick(wanted.schedule, message_id))

    async def recover(self, request: Request, _principal: Principal) -> Response:
        """`POST /internal/recover`."""
        await self._checked_body(request, RECOVERY_PATH)
        recovered = await self._store.recover()
        queue_met(recovered.tally)
        for run_id, reason in recovered.set_aside.items():
            log("run.set_aside", level=logging.ERROR, run_id=run_id, reason=reason)
        repaired = await self._schedules.repair(int(time.time() * 1000))
        published = await self._webhooks.publish_overdue()
        return ok(RecoveryResult(next_ms=recovered.next_ms, schedules=repaired, webhooks=published))

    async def deliver(self, request: Request, _principal: Principal) -> Response:
        """`POST /webhooks/deliver`."""
        body = await self._checked_body(request, DELIVER_PATH)
        try:
            wanted = msgspec.json.decode(body, type=DeliverBody)
        except msgspec.DecodeError as exc:
            raise BadRequest(f"the body is not that of an event: {exc}") from exc
        retried = request.headers.get("upstash-retried", "")
        return ok(await self._webhooks.deliver(wanted.event, int(retried) if _NUMBER.fullmatch(retried) else 0))

    async def _checked_body(self, request: Request, path: str) -> bytes:
        """Return the body of a call that QStash has signed. Raises CallRejected, SchedulesOff, BodyTooLarge."""
        qstash = self._schedules.qstash
        body = await read_body(request, MAX_CALL_BYTES)
        try:
            qstash.check_call(request.headers.get("upstash-signature", ""), path, body, time.time())
        except CallRejected as exc:
            # Anybody can cause it.
            if (count := self._rejected.count(time.monotonic())) is not None:
                log("qstash.call_rejected", level=logging.WARNING, path=path, reason=str(exc), count=count)
            raise
        return body
