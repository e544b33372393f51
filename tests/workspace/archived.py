"""Events and reads of archived logs."""

from infra.contract.log import Event, Segment
from infra.contract.runs import RunHead
from infra.workspace import Workspaces


def events(first: int, last: int) -> list[Event]:
    """Return the events `first` to `last`, with a line break and a non-ASCII key in their data."""
    return [
        Event(seq=seq, ts=seq, type="log", step=seq % 3 or None, data={"é": f"\n{seq}"})
        for seq in range(first, last + 1)
    ]


async def collect(workspaces: Workspaces, run: RunHead, segment: Segment, after: int = 0) -> list[Event]:
    """Return all events of a segment after `after`."""
    return [event async for batch in workspaces.logs.read(run, segment, after=after) for event in batch]
