"""The composition root: builds the application from the environment, and serves it to AWS Lambda through Mangum.

Clients are built once for each process, which on Lambda is once for each cold start; they connect with the first
request, on the one event loop that Mangum keeps.
"""

import functools
import os
from collections.abc import Mapping
from typing import Any

from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES
from starlette.applications import Starlette

from edge_api.app import create_app
from edge_api.auth.api_keys import ApiKeys
from edge_api.http.errors import MEDIA_TYPE
from edge_api.lambda_events import WARM, is_request
from edge_api.settings import EdgeSettings
from infra.contract.redis_store.commands import RunCommands
from infra.logging import configure
from infra.redis_rest import RedisRest
from infra.settings import Env
from infra.workspace import Workspaces


def build_app(env: Mapping[str, str]) -> Starlette:
    """The application over its real adapters. Raises SettingsError."""
    settings = EdgeSettings.from_env(Env(env))
    redis = RedisRest(settings.redis)
    files = Workspaces(settings.s3)
    store = RunCommands(redis, settings.store.keys, retention_s=settings.store.retention_s)

    async def close() -> None:
        await redis.close()
        files.close()

    return create_app(store, redis, files, ApiKeys(settings.api_keys), settings.api, close=close)


@functools.cache
def _mangum() -> Mangum:
    configure()
    # Mangum encodes what it does not know to be text as base64.
    text = [*DEFAULT_TEXT_MIME_TYPES, MEDIA_TYPE, "application/x-ndjson"]
    return Mangum(build_app(os.environ), lifespan="off", text_mime_types=text)


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """The Lambda function."""
    serve = _mangum()
    if not is_request(event):
        return dict(WARM)
    return dict(serve(dict(event), context))
