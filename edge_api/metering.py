"""Metrics of the API as log lines in the embedded metric format of CloudWatch (EMF), one for each request.

A function has no memory that anybody could scrape, so what a request has caused is collected in its context and
written with its end; CloudWatch makes metrics of the line. Off unless EDGE_EMF_NAMESPACE is set: then nothing is
collected. Dimensions are bounded: the pattern of the route and the class of the status, never a path or a user.
"""

import time
from collections.abc import Awaitable, Sequence
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.contract.queue import QueueTally
from infra.contract.redis import Argument, Redis, Reply, Script
from infra.logging import log

T = TypeVar("T")
Values: TypeAlias = dict[str, Any]
"""Metrics of a line by name: a number, or several."""
SERVICE = "swissbrain-api"
UNMATCHED = "unmatched"
"""Route of a request that no endpoint takes."""
MAX_VALUES = 100
"""Values of one metric that EMF allows in a line."""
_EVENT_STREAM = b"text/event-stream"
UNITS = {
    "Requests": "Count",
    "Latency": "Milliseconds",
    "RedisCommands": "Count",
    "RedisLatency": "Milliseconds",
    "RunsCreated": "Count",
    "StreamsOpened": "Count",
    "StreamsClosed": "Count",
    "StreamTime": "Seconds",
    "QueueReady": "Count",
    "RunsRecovered": "Count",
    "RunsFailed": "Count",
}
"""Metrics of a line, and their units."""


class RequestFacts(msgspec.Struct):
    """Numbers of one request. `tally` is that of the recovery tick, None for other requests."""

    route: str = UNMATCHED
    redis_commands: int = 0
    redis_ms: list[float] = []
    runs_created: int = 0
    tally: QueueTally | None = None


_current: ContextVar[RequestFacts | None] = ContextVar("request_facts", default=None)


def route_found(route: str) -> None:
    """Note the method and the path pattern of the endpoint that takes the current request."""
    if facts := _current.get():
        facts.route = route


def run_created() -> None:
    """Count a run that the current request has created."""
    if facts := _current.get():
        facts.runs_created += 1


def queue_met(tally: QueueTally) -> None:
    """Note what a recovery tick has met: the only look at the queue while there are no workers."""
    if facts := _current.get():
        facts.tally = tally


class MeteredRedis:
    """Redis whose calls are counted and timed for the current request; implements the port `Redis`."""

    def __init__(self, inner: Redis) -> None:
        self._inner = inner

    async def command(self, *args: Argument) -> Reply:
        """See the port."""
        return await _timed(1, self._inner.command(*args))

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """See the port."""
        return await _timed(len(commands), self._inner.pipeline(commands))

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """See the port."""
        return await _timed(1, self._inner.script(script, keys, args))


async def _timed(commands: int, call: Awaitable[T]) -> T:
    facts = _current.get()
    if facts is None:
        return await call
    began = time.monotonic()
    try:
        return await call
    finally:
        facts.redis_commands += commands
        # A batch makes more calls than a line can carry; the number of commands includes them.
        if len(facts.redis_ms) < MAX_VALUES:
            facts.redis_ms.append(_ms(began))


class Metering:
    """Middleware that writes a line for each request, and one more for each log stream when it opens."""

    def __init__(self, app: ASGIApp, namespace: str) -> None:
        self._app = app
        self._namespace = namespace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; write the line when the request has ended, however it ends."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        facts, began = RequestFacts(), time.monotonic()
        status, latency_ms, opened_at = 0, None, None
        token = _current.set(facts)

        async def watched_send(message: Message) -> None:
            nonlocal status, latency_ms, opened_at
            if message["type"] == "http.response.start":
                status, latency_ms = message["status"], _ms(began)
                if scope["method"] != "HEAD" and _is_stream(message):
                    opened_at = time.monotonic()
                    self._write(facts.route, status, {"StreamsOpened": 1})
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        finally:
            _current.reset(token)
            # A client that left before the response has begun waited until now.
            values: Values = {"Requests": 1, "Latency": _ms(began) if latency_ms is None else latency_ms}
            if opened_at is not None:
                values |= {"StreamsClosed": 1, "StreamTime": round(time.monotonic() - opened_at, 3)}
            self._write(facts.route, status, values | _numbers(facts))

    def _write(self, route: str, status: int, values: Values) -> None:
        directive = {
            "Namespace": self._namespace,
            "Dimensions": [["Service"], ["Service", "Route", "Status"]],
            "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in values],
        }
        log(
            "request.metrics",
            _aws={"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": [directive]},
            Service=SERVICE,
            Route=route,
            Status=f"{status // 100}xx" if status else "none",
            **values,
        )


def _numbers(facts: RequestFacts) -> Values:
    """Return the metrics of the facts, without those that say nothing."""
    values: Values = {}
    if facts.redis_commands:
        values |= {"RedisCommands": facts.redis_commands, "RedisLatency": facts.redis_ms}
    if facts.runs_created:
        values["RunsCreated"] = facts.runs_created
    if tally := facts.tally:
        failed = sum(number for (status, _), number in tally.ended.items() if status == "failed")
        values |= {
            "QueueReady": tally.ready,
            "RunsRecovered": sum(tally.recovered.values()),
            "RunsFailed": failed,
        }
    return values


def _is_stream(start: Message) -> bool:
    return any(name == b"content-type" and value.startswith(_EVENT_STREAM) for name, value in start["headers"])


def _ms(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 3)
