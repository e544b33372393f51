"""Loop of the Lambda runtime: receive one invocation after another, and respond to it."""

import logging
import os

import msgspec
from mangum import Mangum
from mangum.types import ASGI
from starlette.types import Scope

from edge_api.http.errors import describe, respond
from edge_api.lambda_events import UNREADABLE, WARM, converted, is_request
from edge_api.lambda_stream.connection import ConnectionLost
from edge_api.lambda_stream.exchange import HttpExchange
from edge_api.lambda_stream.runtime_api import Invocation, RuntimeApi, RuntimeApiRejected
from infra.logging import log

_NO_SCOPE: Scope = {"type": "http", "method": "GET", "path": "", "headers": []}


async def serve(app: ASGI, api: RuntimeApi) -> None:
    """Respond to invocations until the Runtime API fails. Raises ConnectionLost and RuntimeApiRejected."""
    adapter = Mangum(app, lifespan="off")
    while True:
        invocation = await api.next()
        os.environ["_X_AMZN_TRACE_ID"] = invocation.trace_id or ""
        try:
            await _respond(adapter, api, invocation)
        except ConnectionLost as exc:
            log("lambda.lost", level=logging.WARNING, invocation=invocation.id, reason=str(exc))
        except RuntimeApiRejected as exc:
            if exc.fatal:
                raise
            log("lambda.refused", level=logging.WARNING, invocation=invocation.id, reason=str(exc))


async def _respond(adapter: Mangum, api: RuntimeApi, invocation: Invocation) -> None:
    try:
        event = msgspec.json.decode(invocation.event)
    except Exception as exc:  # noqa: BLE001
        log("lambda.unreadable", level=logging.ERROR, error=exc, invocation=invocation.id)
        await api.fail(invocation, exc)
        return
    if not is_request(event):
        await api.respond(invocation, WARM)
        return
    try:
        # Mangum converts each kind of event to an ASGI scope; the response does not go through it, as it does not
        # stream.
        _, scope, body = converted(adapter, event, invocation)
    except Exception as exc:  # noqa: BLE001
        log("lambda.unreadable", level=logging.ERROR, error=exc, invocation=invocation.id)
        await HttpExchange(api, invocation, _NO_SCOPE, b"").run(respond(*describe(UNREADABLE)))
        return
    await HttpExchange(api, invocation, scope, body).run(adapter.app)
