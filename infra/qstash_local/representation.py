"""JSON with the field names of QStash, which its SDK reads."""

import base64
from typing import Any

from infra.qstash_local.messages import CronSchedule, DeliveryResponse, MessageEvent, OutboundCall, QueuedMessage


def schedule_json(schedule: CronSchedule, next_ms: int | None) -> dict[str, Any]:
    """Return a schedule; without a next time it is paused."""
    call = schedule.call
    return {
        "scheduleId": schedule.id,
        "cron": schedule.cron,
        "createdAt": schedule.created_ms,
        "destination": call.url,
        "retries": call.retries,
        "isPaused": next_ms is None,
        "nextScheduleTime": next_ms,
        **_call_json(call),
    }


def message_json(message_id: str, message: QueuedMessage) -> dict[str, Any]:
    """Return a message."""
    call = message.call
    return {
        "messageId": message_id,
        "url": call.url,
        "maxRetries": call.retries,
        "createdAt": message.created_ms,
        "notBefore": max(message.not_before_ms, message.created_ms + round(call.delay_s * 1000)),
        **({"scheduleId": message.schedule_id} if message.schedule_id else {}),
        **_call_json(call),
    }


def dead_letter_json(message_id: str, message: QueuedMessage, response: DeliveryResponse) -> dict[str, Any]:
    """Return a dead letter, which has the id of its message."""
    return {
        **message_json(message_id, message),
        "dlqId": message_id,
        "responseStatus": response.status,
        "responseHeader": response.headers,
        **_body_json(response.body, "responseBody", "responseBodyBase64"),
        **({"error": response.error} if response.error else {}),
    }


def event_json(stream_id: str, event: MessageEvent) -> dict[str, Any]:
    """Return an event; the id of its entry in the stream begins with its time in ms."""
    fields = {
        "messageId": event.message_id,
        "state": event.state,
        "url": event.url,
        "scheduleId": event.schedule_id,
        "responseStatus": event.response_status,
        "error": event.error,
        "label": event.label,
    }
    return {"time": int(stream_id.partition("-")[0]), **_without_none(fields)}


def _call_json(call: OutboundCall) -> dict[str, Any]:
    fields = {
        "method": call.method,
        "header": {name: [value] for name, value in call.headers.items()},
        "callback": call.callback,
        "failureCallback": call.failure_callback,
        "timeout": int(call.timeout_s),
        "delay": int(call.delay_s) or None,
        "label": call.label,
    }
    return _without_none(fields) | _body_json(call.body, "body", "bodyBase64")


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _body_json(body: bytes, text_field: str, base64_field: str) -> dict[str, str]:
    """Return the body as text, or in base64 if it is no UTF-8."""
    try:
        return {text_field: body.decode()}
    except UnicodeDecodeError:
        return {base64_field: base64.b64encode(body).decode()}
