"""Start of a forked run: takes over the first steps of another run, their journal and the workspace they left."""

import msgspec

from infra.contract.errors import FileMissing
from infra.contract.events import RunForked
from infra.contract.files import Changes, FileEntry
from infra.contract.journal import FORKED, files_key, step_key
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.runs import ForkOf, RunError
from worker.run.context import RunContext, resolve
from worker.run.emitter import new_event
from worker.run.retrying import until_answered
from worker.run.strategy import StepFailed
from worker.workspaces import Workspaces


async def inherit(context: RunContext, fork: ForkOf, store: WorkQueue, workspaces: Workspaces) -> None:
    """Take over the steps before `from_step`, once. Raises StepFailed if the source run has been deleted meanwhile."""
    if context.knows(FORKED):
        return
    known = await until_answered(lambda: store.journal(fork.run_id))
    source = workspaces.run(context.run.user, fork.run_id, 0, {})
    journal = {FORKED: b"true"}
    changes: dict[str, Changes] = {}
    try:
        for index in range(fork.from_step):
            key = step_key(index)
            journal[key] = await resolve(known[key], source)
            if (done := files_key(key)) in known:
                text = await resolve(known[done], source)
                changes[done] = msgspec.json.decode(text, type=dict[str, FileEntry | None])
        event = new_event(RunForked(run_id=fork.run_id, from_step=fork.from_step))
        await context.inherit(journal, changes, source, event)
    except (KeyError, FileMissing):
        message = f"the source of the fork, run {fork.run_id}, has been deleted"
        raise StepFailed(RunError(code="fork_source_gone", message=message)) from None
