"""Composition root: builds the application from the environment, and serves it to AWS Lambda through Mangum.

The clients are built once for each process, on Lambda at a cold start. They connect with the first request, on the
event loop of all requests.
"""

import asyncio
import functools
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES
from mangum.protocols import HTTPCycle
from starlette.applications import Starlette

from edge_api.app import create_app
from edge_api.auth.api_keys import ApiKeys
from edge_api.http.errors import MEDIA_TYPE, describe
from edge_api.lambda_deadline import RespondsInTime
from edge_api.lambda_events import UNREADABLE, WARM, converted, is_request
from edge_api.metering import MeteredRedis
from edge_api.schedules_service import Scheduling
from edge_api.settings import EdgeSettings
from edge_api.webhooks_service import Webhooks, WebhookService
from infra.contract.redis import Redis
from infra.contract.redis_store.commands import RunCommands
from infra.contract.redis_store.schedule_store import ScheduleStore
from infra.logging import configure, log
from infra.qstash import QStash
from infra.redis_rest import RedisRest
from infra.settings import Env
from infra.workspace import Workspaces

if TYPE_CHECKING:
    from infra.webhook_http import WebhookHttp


def build_app(env: Mapping[str, str], *, starts_cold: bool = True) -> Starlette:
    """Return the application with its adapters, by default for a function. Raises SettingsError."""
    settings = EdgeSettings.from_env(Env(env))
    redis = RedisRest(settings.redis, starts_cold=starts_cold)
    workspaces = Workspaces(settings.s3)
    commands = MeteredRedis(redis) if settings.api.emf_namespace else redis
    qstash = QStash(settings.qstash) if settings.qstash else None
    webhooks = _webhooks(settings, commands, qstash)
    events = webhooks.publisher if webhooks else None
    store = RunCommands(commands, settings.store.keys, retention_s=settings.store.retention_s, events=events)
    scheduling = Scheduling(ScheduleStore(commands, settings.store.keys), qstash) if qstash else None

    async def close() -> None:
        if qstash:
            await qstash.close()
        await redis.close()
        workspaces.close()

    lacks = [name for name, has in (("QSTASH_TOKEN", qstash), ("EDGE_WEBHOOK_KEY", settings.webhook_keys)) if not has]
    return create_app(
        store,
        redis,
        workspaces,
        ApiKeys(settings.api_keys),
        settings.api,
        scheduling=scheduling,
        webhooks=WebhookService(webhooks, " and ".join(lacks)),
        close=close,
    )


def _webhooks(settings: EdgeSettings, redis: Redis, qstash: QStash | None) -> Webhooks | None:
    """Return what webhooks need; None without access to QStash, or without a key to sign with."""
    if qstash is None or not settings.webhook_keys:
        return None
    from infra.contract.redis_store.webhook_store import WebhookStore
    from infra.event_publisher import EventPublisher

    # Built by the first request that needs it: a cold start need not pay for the check of addresses.
    @functools.cache
    def http() -> "WebhookHttp":
        from infra.webhook_http import WebhookHttp

        return WebhookHttp(settings.webhook_private_hosts)

    store = WebhookStore(redis, settings.store.keys)
    return Webhooks(store, EventPublisher(store, qstash), http, settings.webhook_keys)


@functools.cache
def _mangum() -> Mangum:
    configure()
    # Mangum encodes a body as base64 unless its media type is one of these.
    text = [*DEFAULT_TEXT_MIME_TYPES, MEDIA_TYPE, "application/x-ndjson"]
    return Mangum(build_app(os.environ), lifespan="off", text_mime_types=text)


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of all requests, to which the clients are bound."""
    return asyncio.new_event_loop()


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Handle an event of AWS Lambda: an HTTP request, or a warm-up."""
    # Each time: `asyncio.run` of other code in the process leaves the thread without a loop.
    asyncio.set_event_loop(_loop())
    serve = _mangum()
    if not is_request(event):
        return dict(WARM)
    try:
        request, scope, body = converted(serve, event, context)
    except Exception as exc:  # noqa: BLE001
        log("lambda.unreadable", level=logging.ERROR, error=exc)
        return _unreadable()
    response = HTTPCycle(scope, body)(RespondsInTime(serve.app))
    if scope["method"] == "HEAD":
        response["body"] = b""  # as servers do: the application responds to HEAD as to GET
    return dict(request(response))


def _unreadable() -> dict[str, Any]:
    problem, _ = describe(UNREADABLE)
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store"}
    body = msgspec.json.encode(problem).decode()
    return {"statusCode": problem.status, "headers": headers, "body": body, "isBase64Encoded": False}
