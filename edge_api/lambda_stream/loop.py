"""What Lambda's own runtime does for a function: take one invocation after the other, and answer it."""

import logging
import os
from typing import Any

import msgspec
from mangum import Mangum
from mangum.types import ASGI

from edge_api.lambda_events import WARM, is_request
from edge_api.lambda_stream.connection import ConnectionLost
from edge_api.lambda_stream.exchange import Exchange
from edge_api.lambda_stream.runtime_api import Invocation, Refused, RuntimeApi
from infra.logging import log


async def serve(app: ASGI, api: RuntimeApi) -> None:
    """Answer invocations until no more can be had: raises ConnectionLost and Refused."""
    adapter = Mangum(app, lifespan="off")
    while True:
        invocation = await api.next()
        os.environ["_X_AMZN_TRACE_ID"] = invocation.trace_id or ""
        try:
            await _answer(adapter, api, invocation)
        except ConnectionLost as exc:
            log("lambda.lost", level=logging.WARNING, invocation=invocation.id, reason=str(exc))
        except Refused as exc:
            if exc.fatal:
                raise
            log("lambda.refused", level=logging.WARNING, invocation=invocation.id, reason=str(exc))


async def _answer(adapter: Mangum, api: RuntimeApi, invocation: Invocation) -> None:
    try:
        request = _request(adapter, msgspec.json.decode(invocation.event), invocation)
    except Exception as exc:  # noqa: BLE001
        log("lambda.unreadable", level=logging.ERROR, error=exc, invocation=invocation.id)
        await api.fail(invocation, exc)
        return
    if request is None:
        await api.reply(invocation, WARM)
        return
    scope, body = request
    await Exchange(api, invocation, scope, body).run(adapter.app)


def _request(adapter: Mangum, event: Any, context: Any) -> tuple[Any, bytes] | None:
    """The request as ASGI has it, scope and body; None if the event is none."""
    if not is_request(event):
        return None
    found = adapter.infer(event, context)
    return found.scope, found.body
