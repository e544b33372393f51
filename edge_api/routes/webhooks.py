"""Webhooks of a user: the secret of their signatures, and the deliveries of a run's events."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import IDEMPOTENCY_KEY, ApiEndpoint
from edge_api.http.parsing import idempotency_key, read_nothing
from edge_api.http.principal import Principal
from edge_api.http.responses import ok
from edge_api.http.webhook_models import ResentEvent, WebhookDeliveries, WebhookSecret
from edge_api.runs_service import RunService
from edge_api.settings import READ_RUNS, WRITE_RUNS
from edge_api.webhooks_service import WebhookService


class WebhookRoutes:
    """Operations on the webhooks of a user."""

    def __init__(self, runs: RunService, webhooks: WebhookService, *, max_body_bytes: int) -> None:
        self._runs = runs
        self._webhooks = webhooks
        self._max_body_bytes = max_body_bytes

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "GET",
                "/agent/webhooks/secret",
                self.secret,
                WRITE_RUNS,
                operation_id="getWebhookSecret",
                summary="Get the secret with which the events of your runs are signed.",
                success={200: WebhookSecret},
                errors=[501],
            ),
            ApiEndpoint(
                "GET",
                "/agent/runs/{run_id}/webhooks",
                self.deliveries,
                READ_RUNS,
                operation_id="listWebhookDeliveries",
                summary="List the events of a run for its webhook, with their deliveries.",
                success={200: WebhookDeliveries},
                errors=[404, 501],
            ),
            ApiEndpoint(
                "POST",
                "/agent/runs/{run_id}/webhooks/{event_id}/resend",
                self.resend,
                WRITE_RUNS,
                operation_id="resendWebhook",
                summary="Send an event of a run to its webhook again.",
                success={202: ResentEvent},
                errors=[404, 413, 415, 422, 501],
                headers=[IDEMPOTENCY_KEY],
            ),
        ]

    async def secret(self, _request: Request, principal: Principal) -> Response:
        """`GET /agent/webhooks/secret`."""
        return ok(WebhookSecret(secret=self._webhooks.secret(principal.user)))

    async def deliveries(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}/webhooks`."""
        run = await self._runs.head(principal.user, request.path_params["run_id"])
        return ok(WebhookDeliveries(events=await self._webhooks.deliveries(principal.user, run.id)))

    async def resend(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/webhooks/{event_id}/resend`."""
        await read_nothing(request, self._max_body_bytes)
        run = await self._runs.head(principal.user, request.path_params["run_id"])
        event_id = request.path_params["event_id"]
        sent = await self._webhooks.resend(principal.user, run.id, event_id, key=idempotency_key(request))
        return ok(sent, 202)
