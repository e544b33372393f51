"""Simulated worker that archives the log of its run on request."""

from infra.contract.log import Segment
from infra.contract.states import Outcome
from infra.workspace import Workspaces
from tests.edge.stack import SimulatedWorker
from tests.support.logs import events_in_redis


class ArchivingWorker(SimulatedWorker):
    """Worker that archives on request."""

    def __init__(self, worker: SimulatedWorker, workspaces: Workspaces) -> None:
        super().__init__(worker.redis)
        self.workspaces = workspaces

    async def archive(self, run_id: str, *lasts: int) -> list[Segment]:
        """Move the events up to the last of these numbers into segments that end with these numbers."""
        for last in lasts:
            record, log = await self.store.get(run_id), await self.store.log(run_id)
            events = await events_in_redis(self.store, run_id, after=log.archived)
            segment = Segment(log.archived + 1, last, record.fence)
            await self.workspaces.logs.store(log, segment, [event for event in events if event.seq <= last])
            assert await self.store.trim(record, [*log.segments, segment]) is Outcome.OK
        return list((await self.store.log(run_id)).segments)
