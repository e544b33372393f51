"""Archive for tests whose logs are too short to be archived."""

from collections.abc import AsyncGenerator, Sequence

from infra.contract.log import Event, Segment
from infra.contract.runs import RunHead


class NoArchive:
    """Implements the port `LogArchive`; every call fails the test."""

    async def store(self, run: RunHead, segment: Segment, events: Sequence[Event]) -> None:
        raise AssertionError(f"{run.id} is archived")

    async def discard(self, run: RunHead, segment: Segment) -> None:
        raise AssertionError(f"a segment of {run.id} is discarded")

    def read(self, run: RunHead, segment: Segment, *, after: int) -> AsyncGenerator[list[Event], None]:
        raise AssertionError(f"the archive of {run.id} is read")
