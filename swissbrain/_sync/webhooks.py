# Generated from swissbrain/_async by `python -m scripts.unasync`; change it there.
"""Methods of the client for webhooks."""

from swissbrain import webhook_endpoints
from swissbrain._sync.transport import Transport
from swissbrain.webhooks import WebhookDelivery


class WebhookMethods:
    """Methods for the calls that the API makes when runs end or wait."""

    _api: Transport

    def webhook_secret(self) -> str:
        """Return the secret, `whsec_…`, with which `swissbrain.webhooks.verify` checks the events of your runs."""
        return (self._api.ask(webhook_endpoints.get_webhook_secret())).secret

    def webhook_deliveries(self, run_id: str) -> list[WebhookDelivery]:
        """Return the last events of a run for its webhook, with their deliveries, oldest first."""
        return (self._api.ask(webhook_endpoints.list_webhook_deliveries(run_id))).events

    def resend_webhook(self, run_id: str, event_id: str, *, idempotency_key: str | None = None) -> None:
        """Send an event of a run to its webhook again."""
        self._api.ask(webhook_endpoints.resend_webhook(run_id, event_id, idempotency_key))
