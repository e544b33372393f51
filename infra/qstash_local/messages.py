"""Messages, schedules and events of the stand-in, as they are stored."""

import msgspec

MAX_RESPONSE_BYTES = 64 * 1024
"""Size up to which the answer of a destination is read and kept."""


class OutboundCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """HTTP call that a message delivers, and what follows it. Times are in seconds.

    `headers` go to the destination, the callbacks have their own. `callback` is called after each attempt,
    `failure_callback` once when the message has failed. Of calls with the same `flow_key`, `parallelism` are made at a
    time.
    """

    url: str
    body: bytes = b""
    method: str = "POST"
    headers: dict[str, str] = {}
    callback_headers: dict[str, str] = {}
    failure_callback_headers: dict[str, str] = {}
    retries: int = 3
    timeout_s: float = 60.0
    delay_s: float = 0.0
    callback: str | None = None
    failure_callback: str | None = None
    label: str | None = None
    flow_key: str | None = None
    parallelism: int = 0


class QueuedMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Undelivered message. `tick_ms`: time at which its schedule was due; None without a schedule."""

    call: OutboundCall
    created_ms: int
    not_before_ms: int = 0
    schedule_id: str | None = None
    tick_ms: int | None = None


class TakenMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Message that this process delivers. `retried`: attempts before this one; `take`: number of this take."""

    id: str
    message: QueuedMessage
    retried: int
    take: int


class CronSchedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Call that is made whenever a cron expression is due."""

    id: str
    cron: str
    call: OutboundCall
    created_ms: int


class DeliveryResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answer of a destination; status 0 and `error` if there was none."""

    status: int
    headers: dict[str, list[str]] = {}
    body: bytes = b""
    error: str | None = None


class MessageEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Event in the log of messages, with the field names of QStash."""

    message_id: str
    state: str
    url: str
    schedule_id: str | None = None
    response_status: int | None = None
    error: str | None = None
    label: str | None = None


def event(
    message_id: str, message: QueuedMessage, state: str, response: DeliveryResponse | None = None
) -> MessageEvent:
    """Return the event for the new state of a message. `response`: answer that has led to it, if there was one."""
    return MessageEvent(
        message_id=message_id,
        state=state,
        url=message.call.url,
        schedule_id=message.schedule_id,
        response_status=response.status if response and response.status else None,
        error=response.error if response else None,
        label=message.call.label,
    )
