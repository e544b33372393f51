"""Start of a run that continues another one: takes over its files and its conversation."""

import msgspec

from infra.contract.errors import FileMissing, RunGone
from infra.contract.events import RunContinued
from infra.contract.journal import CONTINUED, files_key, folders_key
from infra.contract.paths import parents
from infra.contract.redis_store.work_queue import WorkQueue
from infra.contract.runs import RunError
from infra.contract.states import TERMINAL
from worker.agent.past_conversation import conversation_of
from worker.run.blobs import resolve
from worker.run.context import RunContext
from worker.run.emitter import new_event
from worker.run.retrying import until_answered
from worker.run.strategy import StepFailed
from worker.workspaces import RunWorkspaces


async def take_over(context: RunContext, source_id: str, store: WorkQueue, workspaces: RunWorkspaces) -> None:
    """Take over the files and the conversation of an ended run, unless that is done; the source stays as it is.

    Input files of the run replace those of the source.
    Raises StepFailed if the source was deleted, or is not ended any more.
    """
    if context.knows(CONTINUED):
        return
    try:
        before = await until_answered(lambda: store.head(source_id))
        journal = await until_answered(lambda: store.journal(source_id))
        files = await until_answered(lambda: store.files(source_id))
        folders = await until_answered(lambda: store.folders(source_id))
        after = await until_answered(lambda: store.head(source_id))
        # A retry between the calls could mix two states of the workspace.
        if before.status not in TERMINAL or (before.status, before.seq) != (after.status, after.seq):
            message = (
                f"the run {source_id}, which this run continues, was retried; wait for its end, then retry this run"
            )
            raise StepFailed(RunError(code="continue_source_active", message=message))
        # Blobs and objects of the source are only read here, so its fence and its file list are not needed.
        source = workspaces.run(context.run.user, source_id, 0, {})
        conversation = await conversation_of(journal, lambda key: resolve(journal[key], source))
        entries = {CONTINUED: msgspec.json.encode(conversation), folders_key(CONTINUED): msgspec.json.encode(folders)}
        event = new_event(RunContinued(run_id=source_id))
        # Input files of the run itself are newer: neither a file nor a folder of theirs can be a file of the source.
        newer = {each for path in context.inputs for each in (path, *parents(path))}
        taken = {
            path: entry
            for path, entry in files.items()
            if path not in newer and context.inputs.keys().isdisjoint(parents(path))
        }
        await context.inherit(entries, {files_key(CONTINUED): taken}, [folders], source, event)
    except (RunGone, FileMissing):
        message = f"the run {source_id}, which this run continues, has been deleted"
        raise StepFailed(RunError(code="continue_source_gone", message=message)) from None
