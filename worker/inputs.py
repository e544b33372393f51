"""Input files from other runs: copied into the run before its first step, and before what a fork takes over."""

from infra.contract.errors import FileMissing
from infra.contract.events import Log
from infra.contract.files import FileEntry
from infra.contract.journal import input_key
from infra.contract.runs import RunError
from worker.run.context import RunContext
from worker.run.emitter import new_event
from worker.run.strategy import StepFailed
from worker.workspaces import RunWorkspaces


async def copy_inputs(context: RunContext, workspaces: RunWorkspaces) -> None:
    """Copy the files that are not copied yet, one write per source run. Raises StepFailed if a source was deleted."""
    wanted: dict[str, dict[str, FileEntry]] = {}
    for path, file in sorted(context.inputs.items()):
        if file.from_run is not None and not context.knows(input_key(path)):
            wanted.setdefault(file.from_run, {})[path] = file.entry
    for run_id, files in wanted.items():
        # Objects of the source are only read here, so its fence and its file list are not needed.
        source = workspaces.run(context.run.user, run_id, 0, {})
        changes = {input_key(path): {path: entry} for path, entry in files.items()}
        names = ", ".join(files)
        copied = new_event(Log(level="info", message=f"copied from the run {run_id}: {names}"))
        try:
            await context.inherit({}, changes, [], source, copied)
        # The API found the files when they were announced, so a missing object means that the source was deleted.
        except FileMissing:
            message = f"the run {run_id}, from which input files were to be copied, has been deleted: {names}"
            raise StepFailed(RunError(code="input_gone", message=message)) from None
