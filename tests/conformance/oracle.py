"""What a run's log is, as Redis and the object store hold it, past the product's ways of serving it."""

from typing import Any

from msgspec import json, to_builtins

from edge_api.http.response_models import LogEvent
from infra.contract.log import TERMINAL_EVENT
from infra.contract.states import TERMINAL
from infra.workspace import Workspaces
from tests.chaos.site import Site
from tests.support.logs import events_in_redis
from tests.support.run_store import RunStore

Seen = dict[str, Any]


async def kept(site: Site, run_id: str) -> list[Seen]:
    """All events of a run that has ended: first what is archived, then what is still in the stream."""
    redis, workspaces = site.redis(), Workspaces(site.stack.config.s3)
    store = RunStore(redis)
    try:
        log, before = await store.log(run_id), None
        while log != before:  # it is still being archived
            before = log
            events = [
                event
                for segment in log.segments
                async for some in workspaces.logs.read(log, segment, after=0)
                for event in some
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


def differences(seen: list[Seen], expected: list[Seen]) -> str:
    """Where two logs part, in a line; empty if they are the same."""
    if seen == expected:
        return ""
    numbers = [event.get("seq") for event in seen]
    for place, (one, other) in enumerate(zip(seen, expected, strict=False)):
        if one != other:
            return f"at {place}: {json.encode(one)!r} instead of {json.encode(other)!r}; the numbers are {numbers[:50]}"
    return f"{len(seen)} events instead of {len(expected)}; the numbers end with {numbers[-10:]}"
