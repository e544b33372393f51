"""Endpoints of the API for webhooks, as in `swissbrain.endpoints`."""

from swissbrain.endpoints import key_or_new, quoted
from swissbrain.request import Request
from swissbrain.webhooks import ResentEvent, WebhookDeliveries, WebhookSecret


def get_webhook_secret() -> Request[WebhookSecret]:
    """Return the request for the secret of the user."""
    return Request(WebhookSecret, "GET", "/agent/webhooks/secret")


def list_webhook_deliveries(run_id: str) -> Request[WebhookDeliveries]:
    """Return the request for the events of a run."""
    return Request(WebhookDeliveries, "GET", f"/agent/runs/{quoted(run_id)}/webhooks")


def resend_webhook(run_id: str, event_id: str, idempotency_key: str | None) -> Request[ResentEvent]:
    """Return the request that sends an event of a run again."""
    path = f"/agent/runs/{quoted(run_id)}/webhooks/{quoted(event_id)}/resend"
    return Request(ResentEvent, "POST", path, key=key_or_new(idempotency_key))
