"""Context of one claimed run: journal, log and workspace for the strategy.

How does `once` execute a call only once?

1. If the journal has the key, its value is the result, and the call is not executed.
2. If the call is not repeatable, the entry `started` is set to its key. If it is set already and there is no result, an
   earlier worker was lost during the call: CallInterrupted is raised, because the effects of the call are unknown.
3. Everything buffered so far is stored (`flush`), the results of earlier calls included. So when a call begins, all
   earlier calls are journaled and will never be executed again.
4. The lease is checked by the local clock: a process that was suspended must not begin a call that the next owner of
   the run makes.
5. The call is executed. Events that it logs are stored meanwhile; its changes of the workspace are not yet committed.
6. Result, changes and final events are buffered as one item, which one fenced script call stores, all or nothing. That
   happens before `once` returns if the caller asks for it (`flush`), else at the latest before the next call begins, or
   together with the run's outcome.

If the worker is lost before the write of 6, the next owner repeats the call, if it is repeatable, on the workspace as
it was before the call.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from infra.contract.files import Changes, FileInfo, FolderChanges
from infra.contract.journal import MAX_INLINE_BYTES, STARTED, BlobRef, files_key, folders_key
from infra.contract.log import NewEvent
from infra.contract.queue import Claim, Writes
from infra.contract.redis_store import codec
from infra.contract.requests import UserMessage
from infra.contract.usage import RunUsage
from worker.run.blobs import resolve
from worker.run.call_context import CallContext, CallRun
from worker.run.emitter import LogEmitter, now_ms
from worker.run.executions import CallInterrupted, RunExecutions
from worker.run.session import RunSession
from worker.run.tool_failures import CallTime
from worker.toolkit.base import ToolContext
from worker.workspaces import RunFiles

T = TypeVar("T")


class RunContext:
    """Claimed run, for the strategy that works on it."""

    def __init__(
        self,
        claim: Claim,
        emitter: LogEmitter,
        files: RunFiles,
        executions: RunExecutions,
        session: RunSession,
        check_lease: Callable[[], None],
    ) -> None:
        self.run = claim.run
        self.inputs = claim.inputs
        self.unable = claim.run.unable
        """Number of workers in a row that were unable to execute the next call."""
        self.emitter = emitter
        self._files = files
        self._executions = executions
        self.session = session
        self._check_lease = check_lease
        self._journal = claim.journal
        self._deferred: list[NewEvent] = []
        self._unread = list(claim.messages)
        self._read: list[int] = []
        self.last_message = claim.messages[-1].number if claim.messages else claim.read
        """Number of the last message offered to the strategy. The run cannot succeed while there are later ones."""
        self._deadline_s = time.monotonic() + claim.run.spec.timeout_s

    async def once(
        self,
        key: str,
        kind: type[T],
        call: Callable[[], Awaitable[T]],
        *,
        done: Callable[[T], Sequence[NewEvent]] = lambda _: (),
        repeatable: bool = True,
        mark: str = "",
        name: str = "",
        usage: Callable[[T], RunUsage | None] = lambda _: None,
        flush: bool = False,
    ) -> T:
        """Return the journaled result of `key`; if there is none, await `call` and journal its result.

        The result, the changes that `call` made in the workspace, the events that `done` returns and the usage that
        `usage` returns are stored together or not at all. Everything journaled before is stored before `call` begins,
        so a completed step is never executed again. If the worker dies while `call` runs, `call` is executed again on
        the workspace as it was; if it is not `repeatable`, its start is journaled first, under `mark` or else `key`,
        and CallInterrupted is raised instead, unless an execution of the tool call `name` is open, which is adopted
        then. `flush`: return only once the result is stored, for a call that is too expensive to be repeated after it
        has returned. Raises LeaseLost, FilesUnavailable, HostExhausted, and any
        exception of `call`, which is not journaled.
        """
        if key in self._journal:
            return await self.recall(key, kind)
        if not repeatable and not self.adopts(name):
            self._mark_started(mark or key)
        await self.emitter.flush()
        await self._executions.discard()
        # `flush` may have sent nothing, and the process may have been suspended since the last renewal.
        self._check_lease()
        value = await call()
        changed = self._take_changes()
        journal = {key: await self._inline(value)} | await self._changes(key, changed)
        journal |= self._executions.closing(name)
        self._commit(done(value), journal, structs.replace(changed, usage=usage(value)))
        self.unable = 0
        if flush:
            await self.emitter.flush()
        return value

    async def new_messages(self) -> list[UserMessage]:
        """Return the unread messages, oldest first. The next commit marks them as read."""
        self._unread += await self.emitter.messages(after=self.last_message)
        messages, self._unread = self._unread, []
        if messages:
            self.last_message = messages[-1].number
        self._read += [message.number for message in messages]
        return messages

    def knows(self, key: str) -> bool:
        """Return whether the journal has an entry for the key."""
        return key in self._journal

    def was_begun(self, key: str) -> bool:
        """Return whether an earlier claim ended during the call of `key` that is not repeatable, or a repetition of it.

        Meaningful only for a key without an entry. The mark of a repetition is `KEY#NUMBER`.
        """
        mark: str = msgspec.json.decode(self._journal.get(STARTED, b'""'))
        return mark.partition("#")[0] == key

    async def recall(self, key: str, kind: type[T]) -> T:
        """Return the journaled result of a key that the journal knows. Raises FilesUnavailable, HostExhausted."""
        return msgspec.json.decode(await resolve(self._journal[key], self._files), type=kind)

    async def list_files(self) -> list[FileInfo]:
        """Return the files of the workspace, sorted by path."""
        return await self._files.list()

    def adopts(self, name: str) -> bool:
        """Return whether the tool call of this name has an open execution, which will be adopted instead of started."""
        return self._executions.is_open(name)

    def commit(self, *events: NewEvent, name: str = "") -> None:
        """Store the changes made in the workspace so far, together with these events.

        `name`: tool call whose outcome they report.
        """
        self._commit(events, self._executions.closing(name), self._take_changes())

    async def commit_failed(self, key: str, *events: NewEvent, name: str = "") -> None:
        """Store the changes made by a call that has failed, together with these events.

        A repetition of the call goes on from these changes, so a fork that takes over its result needs them too: they
        are journaled as changes of `key`, which has no result yet.
        """
        changed = self._take_changes()
        journal = await self._changes(key, changed)
        self._commit(events, journal | self._executions.closing(name), changed)

    async def inherit(
        self,
        journal: Mapping[str, bytes],
        changes: Mapping[str, Changes],
        folders: Sequence[FolderChanges],
        source: RunFiles,
        event: NewEvent,
    ) -> None:
        """Start with journal entries of another run and the changes of its workspace, in one write.

        `changes` are by the key under which the journal holds them; `journal` has the entries of `folders` already.
        """
        adopted = await self._files.adopt(source, list(changes.values()))
        self._files.adopt_folders(folders)
        rewritten = {key: codec.encode(done).encode() for key, done in zip(changes, adopted, strict=True)}
        journal = {**journal, **rewritten}
        # The strategy looks up these entries in the same attempt.
        self._journal = {**self._journal, **journal}
        entries = {key: await self._inline(msgspec.Raw(text)) for key, text in journal.items()}
        self._commit([event], entries, self._take_changes())
        await self.emitter.flush()

    def count(self, usage: RunUsage) -> None:
        """Add the usage of exchanges that have no entry of their own in the journal, because they failed."""
        self.emitter.put(Writes(usage=usage))

    def note(self, key: str, value: object) -> None:
        """Set a small entry of the journal, for a later claim of the run, with the next write."""
        self.emitter.put(Writes(journal={key: codec.encode(value)}))

    def call_began_ms(self, call: str) -> int:
        """Return when a call that is about to be made or adopted began, in ms since the epoch."""
        return now_ms() - int(self._executions.passed_s(call) * 1000)

    def call_time(self, call: str, timeout_s: float | None) -> CallTime:
        """Return the time of a call, which counts from its first start, also if a former owner of the run began it."""
        return CallTime(timeout_s, None if timeout_s is None else self._executions.time_left(call, timeout_s))

    def for_call(
        self,
        call: str,
        step: int,
        within: CallTime,
        *,
        for_model: bool = False,
        repeatable: bool = True,
    ) -> ToolContext:
        """Return the context of a tool call, named `call`, in a step, counted from 0; a model may read its result.

        `within`: time of the call, besides that of the run. `repeatable`: a program that was lost with its host may be
        executed again.
        """
        run = CallRun(
            self.run.id, self.emitter, self._executions, self.session, self._files, self.defer, self._deadline_s
        )
        return CallContext(run, call, step, within, for_model=for_model, repeatable=repeatable)

    def defer(self, event: NewEvent) -> None:
        """Log an event together with the next commit, not before: it reports a change of the workspace."""
        self._deferred.append(event)

    def _mark_started(self, key: str) -> None:
        mark = codec.encode(key)
        if self._journal.get(STARTED) == mark.encode():
            raise CallInterrupted
        self.emitter.put(Writes(journal={STARTED: mark}))

    def _take_changes(self) -> Writes:
        """Return the uncommitted changes of the workspace, and the messages that were read."""
        read, self._read = self._read, []
        files, folders = self._files.take_uncommitted(), self._files.take_uncommitted_folders()
        return Writes(files=files, folders=folders, read=read)

    def _commit(self, events: Sequence[NewEvent], journal: dict[str, str], changed: Writes) -> None:
        deferred, self._deferred = self._deferred, []
        self.emitter.put(
            structs.replace(changed, events=[*deferred, *events], journal=journal | self.session.take_note())
        )

    async def _changes(self, key: str, changed: Writes) -> dict[str, str]:
        """Return the entries for changes that belong to a key, after those of its calls that have failed before."""
        journal: dict[str, str] = {}
        for entry, changes in ((files_key(key), changed.files), (folders_key(key), changed.folders)):
            if changes:
                earlier = await self.recall(entry, dict[str, Any]) if entry in self._journal else {}
                journal[entry] = await self._inline({**earlier, **changes})
        return journal

    async def _inline(self, value: object) -> str:
        """Return the JSON for the journal: the value itself, or a reference to its blob if it is large."""
        text = codec.encode(value)
        if len(text) > MAX_INLINE_BYTES:
            text = codec.encode(BlobRef.of(await self._files.put_blob(text.encode()), text))
        return text
