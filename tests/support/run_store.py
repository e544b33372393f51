"""Both halves of the store in one object, for tests that act as API and as worker."""

from infra.contract.redis_store.commands import RunCommands
from infra.contract.redis_store.work_queue import WorkQueue


class RunStore(RunCommands, WorkQueue):
    """Commands of the API and the queue of the workers over one connection."""
