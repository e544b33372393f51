"""A log as Redis has it, past the API."""

from infra.contract.log import Event
from infra.contract.redis_store.reader import RunReader


async def events_in_redis(store: RunReader, run_id: str, *, after: int = 0) -> list[Event]:
    """All that Redis has of a run's log after an event."""
    events: list[Event] = []
    more = True
    while more:
        found, more = await store.read(run_id, after=events[-1].seq if events else after)
        events += found
    return events
