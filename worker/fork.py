"""Start of a forked run: takes over the first steps of another run, with their journal and workspace."""

import msgspec

from infra.contract.errors import FileMissing
from infra.contract.events import RunForked
from infra.contract.files import Changes, FileEntry, FolderChanges, FolderEntry
from infra.contract.journal import FORKED, files_key, folders_key, step_key
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.runs import ForkOf, RunError
from worker.run.blobs import resolve
from worker.run.context import RunContext
from worker.run.emitter import new_event
from worker.run.retrying import until_answered
from worker.run.strategy import StepFailed
from worker.workspaces import RunWorkspaces


async def inherit(context: RunContext, fork: ForkOf, store: WorkQueue, workspaces: RunWorkspaces) -> None:
    """Take over the steps before `from_step`, unless that is done. Raises StepFailed if the source run was deleted."""
    if context.knows(FORKED):
        return
    source_journal = await until_answered(lambda: store.journal(fork.run_id))
    # Blobs and objects of the source are only read here, so its fence and its file list are not needed.
    source = workspaces.run(context.run.user, fork.run_id, 0, {})
    journal = {FORKED: b"true"}
    changes: dict[str, Changes] = {}
    folders: list[FolderChanges] = []
    try:
        for index in range(fork.from_step):
            key = step_key(index)
            journal[key] = await resolve(source_journal[key], source)
            if (changes_key := files_key(key)) in source_journal:
                text = await resolve(source_journal[changes_key], source)
                changes[changes_key] = msgspec.json.decode(text, type=dict[str, FileEntry | None])
            if (changes_key := folders_key(key)) in source_journal:
                journal[changes_key] = await resolve(source_journal[changes_key], source)
                folders.append(msgspec.json.decode(journal[changes_key], type=dict[str, FolderEntry | None]))
        event = new_event(RunForked(run_id=fork.run_id, from_step=fork.from_step))
        await context.inherit(journal, changes, folders, source, event)
    # The API checked that the steps exist, so a missing entry or blob means that the source was deleted since then.
    except (KeyError, FileMissing):
        message = f"the source of the fork, run {fork.run_id}, has been deleted"
        raise StepFailed(RunError(code="fork_source_gone", message=message)) from None
