"""Expected log of a run, read from Redis and the object store directly, without the API."""

from typing import Any

from msgspec import json, to_builtins

from edge_api.http.response_models import LogEvent
from infra.contract.log import TERMINAL_EVENT
from infra.contract.states import TERMINAL
from infra.workspace import Workspaces
from tests.chaos.site import ChaosSite
from tests.support.logs import events_in_redis
from tests.support.run_store import RunStore

EventFields = dict[str, Any]


async def stored_events(site: ChaosSite, run_id: str) -> list[EventFields]:
    """Read all events of a finished run: archived events from S3, then the events in the Redis stream."""
    redis, workspaces = site.redis(), Workspaces(site.config.s3)
    store = RunStore(redis)
    try:
        log, before = await store.log(run_id), None
        while log != before:  # the worker is still archiving: events may have moved while both parts were read
            before = log
            events = [
                event
                for segment in log.segments
                async for part in workspaces.logs.read(log, segment, after=0)
                for event in part
            ]
            events += await events_in_redis(store, run_id, after=log.archived)
            log = await store.log(run_id)
    finally:
        await redis.close()
        workspaces.close()
    assert [event.seq for event in events] == list(range(1, log.seq + 1))
    assert log.status in TERMINAL
    assert events[-1].type == TERMINAL_EVENT
    return [to_builtins(LogEvent.of(event)) for event in events]


def first_difference(read: list[EventFields], expected: list[EventFields]) -> str:
    """Describe the first difference of two logs in a line; return an empty text if they are equal."""
    if read == expected:
        return ""
    seqs = [event.get("seq") for event in read]
    for index, (one, other) in enumerate(zip(read, expected, strict=False)):
        if one != other:
            return f"item {index}: {json.encode(one)!r} instead of {json.encode(other)!r}; sequence: {seqs[:50]}"
    return f"{len(read)} events instead of {len(expected)}; the sequence ends with {seqs[-10:]}"
