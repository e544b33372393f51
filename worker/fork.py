"""Begins a run with the first steps of another one: their journal, and the workspace as they left it."""

import msgspec

from infra.contract.errors import FileMissing
from infra.contract.events import RunForked
from infra.contract.models import FileEntry, ForkOf, RunError
from infra.contract.ports import Changes
from infra.contract.store import RunStore
from worker.plan import StepFailed, step_key
from worker.run.context import RunContext, files_key, whole
from worker.run.emitter import new_event
from worker.run.retrying import until_answered
from worker.workspaces import Workspaces

INHERITED = "forked"
"""The journal's entry that says that it has been done."""


async def inherit(context: RunContext, fork: ForkOf, store: RunStore, workspaces: Workspaces) -> None:
    """Take over the steps before `from_step`, once. Raises StepFailed if the other run has been deleted meanwhile."""
    if context.knows(INHERITED):
        return
    known = await until_answered(lambda: store.journal(fork.run_id))
    source = workspaces.run(context.run.user, fork.run_id, 0, {})
    journal = {INHERITED: b"true"}
    changes: dict[str, Changes] = {}
    try:
        for index in range(fork.from_step):
            key = step_key(index)
            journal[key] = await whole(known[key], source)
            if (done := files_key(key)) in known:
                text = await whole(known[done], source)
                changes[done] = msgspec.json.decode(text, type=dict[str, FileEntry | None])
        event = new_event(RunForked(run_id=fork.run_id, from_step=fork.from_step))
        await context.inherit(journal, changes, source, event)
    except (KeyError, FileMissing):
        message = f"the run {fork.run_id}, which this one was forked from, has been deleted"
        raise StepFailed(RunError(code="fork_source_gone", message=message)) from None
