"""Input files of runs: announced, checked at the start, and taken over by forks."""

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from edge_api.http.errors import InputsMissing
from edge_api.ports import WorkspaceStore
from infra.contract.errors import LimitExceeded, RunGone, TransitionRefused
from infra.contract.files import FileEntry, Input
from infra.contract.journal import input_key
from infra.contract.redis_store.commands import RunCommands
from infra.contract.runs import RunHead
from infra.contract.states import Outcome, Status

CHECKS = 5
"""Times that a start checks the uploads while other requests announce further files."""

_STARTABLE = frozenset({Status.CREATED, Status.CANCELLED})

Reply = tuple[Outcome, Status | None]


class InputService:
    """Operations on the input files of runs whose owner the caller has checked."""

    def __init__(self, store: RunCommands, workspaces: WorkspaceStore) -> None:
        self._store = store
        self._workspaces = workspaces

    async def announce_upload(self, run: RunHead, path: str, size_bytes: int, sha256: str) -> FileEntry:
        """Announce a file that the client uploads. If the same content was announced before, its entry stays."""
        limit = self._workspaces.limits.file_bytes
        if size_bytes > limit:
            raise LimitExceeded(f"'{path}' has {size_bytes} bytes, a file may have at most {limit}", "$.size_bytes")
        return await self._announce(run, path, Input(entry=self._workspaces.new_upload(path, size_bytes, sha256)))

    async def announce_copy(self, run: RunHead, path: str, source: RunHead, source_path: str) -> None:
        """Announce a file that the worker copies: the one that the source run has now. Raises FileMissing."""
        entry = await self._store.file(source.id, source_path)
        await self._announce(run, path, Input(entry=entry, from_run=source.id, source_path=source_path))

    async def checked(self, run: RunHead, transition: Callable[[int], Awaitable[Reply]]) -> Reply:
        """Make a transition that queues the run, if its uploads are complete. Raises InputsMissing.

        `transition` is given the version of the inputs, and refuses another one.
        """
        if run.queued_ms is not None or run.status not in _STARTABLE:
            return await transition(0)
        for _ in range(CHECKS):
            inputs = await self._store.inputs(run.id)
            if uploads := inputs.uploads():
                missing = await self._workspaces.missing(run.user, run.id, uploads)
                if missing:
                    raise InputsMissing(missing)
            reply = await transition(inputs.version)
            if reply != (Outcome.REFUSED, run.status) or (await self._store.inputs(run.id)).version == inputs.version:
                return reply
        raise TransitionRefused(
            "input files are still being announced; start the run after the last one", run.status.value
        )

    async def of_fork(self, source: RunHead, journal: Mapping[str, bytes]) -> dict[str, Input]:
        """Return the inputs that a fork copies: those of the source run, whose `journal` names the copies it has made.

        Raises TransitionRefused if the source run was not started, because its inputs may still change.
        """
        inputs = (await self._store.inputs(source.id)).files
        if inputs and source.queued_ms is None:
            raise TransitionRefused("cannot fork a run with input files before it is started", source.status.value)
        copies: dict[str, Input] = {}
        for path, file in inputs.items():
            copied = journal.get(input_key(path))
            if copied is not None:
                entry = msgspec.json.decode(copied, type=dict[str, FileEntry])[path]
            elif file.from_run is None:
                entry = file.entry
            else:
                copies[path] = file
                continue
            copies[path] = Input(entry=entry, from_run=source.id, source_path=path)
        return copies

    async def _announce(self, run: RunHead, path: str, file: Input) -> FileEntry:
        max_bytes = self._workspaces.limits.total_bytes
        outcome, status, stored = await self._store.announce(run.id, path, file, max_bytes=max_bytes)
        if stored is not None:
            return stored.entry
        if outcome is Outcome.GONE or status is None:
            raise RunGone(f"there is no run '{run.id}'")
        raise TransitionRefused(
            f"cannot add an input file to a run that is {status.value}; it was started", status.value
        )
