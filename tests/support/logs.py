"""Log of a run read directly from Redis."""

from infra.contract.log import Event
from infra.contract.redis_store.reader import RunReader


async def events_in_redis(store: RunReader, run_id: str, *, after: int = 0) -> list[Event]:
    """Return all events after `after` that Redis still holds."""
    events: list[Event] = []
    more = True
    while more:
        found, more = await store.read(run_id, after=events[-1].seq if events else after)
        events += found
    return events
