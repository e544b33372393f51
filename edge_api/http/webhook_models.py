"""Requests and responses that concern webhooks."""

from typing import Literal

import msgspec

from infra.contract.webhooks import Delivery, DeliveryAttempt, DeliveryState, WebhookEvent


class WebhookSecret(msgspec.Struct, frozen=True, kw_only=True):
    """Secret with which the events of your runs are signed, in the form of Standard Webhooks."""

    secret: str


class WebhookDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """Event of a run for its webhook. Times are ms since the epoch.

    `event_id`: the header `webhook-id`. `event`: why the URL is called. `state`: `pending`, `delivered`, `failed` (no
    more attempts) or `dropped` (too many events waited, so it was never sent). `attempts`: number of all attempts;
    `last_attempts` are the last ones, oldest first.
    """

    event_id: str
    event: WebhookEvent
    status: str
    at_ms: int
    state: DeliveryState
    attempts: int
    last_attempts: list[DeliveryAttempt]

    @classmethod
    def of(cls, delivery: Delivery) -> "WebhookDelivery":
        """Return a delivery as its user may see it."""
        return cls(
            event_id=delivery.ref.event_id,
            event=delivery.noted.event,
            status=delivery.noted.status,
            at_ms=delivery.noted.at_ms,
            state=delivery.state,
            attempts=delivery.attempts,
            last_attempts=delivery.last_attempts,
        )


class WebhookDeliveries(msgspec.Struct, frozen=True, kw_only=True):
    """Last events of a run for its webhook, oldest first."""

    events: list[WebhookDelivery]


class ResentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Event that is sent again."""

    event_id: str


class DeliverBody(msgspec.Struct, frozen=True):
    """Body of the calls of QStash for an event."""

    event: str


class DeliveryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a call of QStash: `delivered`; `duplicate`: it was delivered before; `gone`: the run was deleted."""

    outcome: Literal["delivered", "duplicate", "gone"]


class PostedRun(msgspec.Struct, frozen=True, kw_only=True):
    """Run of an event. `error_code` is null unless it has failed. Times are ms since the epoch.

    `status` is the one that the event reports; the run may have another one by now.
    """

    run_id: str
    status: str
    error_code: str | None
    metadata: dict[str, str]
    created_ms: int
    started_ms: int | None
    at_ms: int


class PostedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Body that is posted to a webhook, in the form of Standard Webhooks. `type` is such as `run.finished`."""

    type: str
    timestamp: str
    data: PostedRun
