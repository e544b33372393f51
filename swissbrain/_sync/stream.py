# Generated from swissbrain/_async by `python -m scripts.unasync`; change it there.
"""Live log of a run: each event once and in order, across lost connections, until the run has ended."""

from collections.abc import Generator
from contextlib import closing

import httpx
import msgspec
from httpx_sse import EventSource, SSEError

from swissbrain._sync.transport import Transport
from swissbrain.concurrency import sleep
from swissbrain.errors import ProtocolError, Unreachable
from swissbrain.log_position import SILENCE_S, LogPosition
from swissbrain.messages import connection_error, raise_for_error, unsendable
from swissbrain.models import Event, Gap


def follow(transport: Transport, path: str, position: LogPosition) -> Generator[Event | Gap, None, None]:
    """Yield the events of a live log. Raises ApiError; Unreachable when the patience of `position` is exhausted.

    A connection that ends before the log has ended is re-established from the last event received.
    """
    while not position.ended:
        try:
            with closing(_connection(transport, path, position)) as items:
                for item in items:
                    yield item
            # The API ends a stream after a while, on purpose: no failure, no backoff.
            pause_s = position.retry_s
        except Unreachable as exc:
            pause_s = position.lost(exc)
        if not position.ended:
            sleep(pause_s)


def _connection(transport: Transport, path: str, position: LogPosition) -> Generator[Event | Gap, None, None]:
    timeout = httpx.Timeout(transport.http.timeout.connect, read=SILENCE_S)
    try:
        with transport.http.stream(
            "GET", path, params=position.params(), headers=position.headers(), timeout=timeout
        ) as response:
            if response.is_error:
                response.read()
                raise_for_error(response, transport.base_url)
            if not position.connected(response, transport.base_url):
                return
            for event in EventSource(response).iter_sse():
                item = position.receive(event)
                if item is not None:
                    yield item
                if position.ended:
                    return
    except (SSEError, msgspec.DecodeError) as exc:
        raise ProtocolError(f"{transport.base_url} does not stream as this API does: {exc}") from exc
    except httpx.InvalidURL as exc:
        raise unsendable(exc) from exc
    except httpx.RequestError as exc:
        raise connection_error(transport.base_url, exc) from exc
