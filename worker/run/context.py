"""What a run's work may use: its journal, its log, its workspace, its executor."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

from infra.contract import codec
from infra.contract.events import Artifact, Log, Message, ToolOutput
from infra.contract.models import Claim, FileChanges, FileEntry, NewEvent, Writes
from infra.contract.ports import Changes, Executor, RunFiles
from worker.run.emitter import LogEmitter, new_event
from worker.toolkit.base import ToolContext

T = TypeVar("T")


LARGE_BYTES = 32 * 1024
"""A larger result is kept in the object store, and the journal names it."""


STARTED = "started"
"""The journal's entry that names what was begun last, of that which must not be begun twice."""


class Interrupted(Exception):
    """This was begun before and its worker was lost: nobody knows what it did, and it must not be repeated."""


class Elsewhere(msgspec.Struct, frozen=True):
    """What the journal holds instead of a large result."""

    kept: str = msgspec.field(name="$kept")


class RunContext:
    """One claimed run, for the code that works on it."""

    def __init__(
        self, claim: Claim, emitter: LogEmitter, files: RunFiles, executor: Executor, check_lease: Callable[[], None]
    ) -> None:
        self.run = claim.run
        self.emitter = emitter
        self.files = files
        self.executor = executor
        self._check_lease = check_lease
        self._journal = claim.journal
        self._news: list[NewEvent] = []

    async def once(
        self,
        key: str,
        kind: type[T],
        call: Callable[[], Awaitable[T]],
        *,
        done: Callable[[T], Sequence[NewEvent]] = lambda _: (),
        repeatable: bool = True,
    ) -> T:
        """The journaled result of `key`, or that of `call`, which is journaled then.

        The result, what `call` changed in the workspace and the events that `done` says are stored together or not at
        all. What was journaled before is stored before `call` begins, so a completed step is never executed again;
        `call` itself is executed again, on the workspace as it was, if the worker dies while it runs; one that is not
        `repeatable` is noted before it begins, and raises Interrupted instead. Raises LeaseLost, FilesUnavailable,
        WorkerShort, and whatever `call` raises, which is not journaled.
        """
        if key in self._journal:
            return await self._recall(self._journal[key], kind)
        if not repeatable:
            self._begin(key)
        await self.emitter.flush()
        self._check_lease()
        value = await call()
        changed = self.files.uncommitted()
        journal = {key: await self._small(value)}
        if changed:
            journal[files_key(key)] = await self._small(changed)
        self._settle(done(value), journal, changed)
        return value

    def knows(self, key: str) -> bool:
        """Whether the journal has the key."""
        return key in self._journal

    def settle(self, *events: NewEvent) -> None:
        """Let what was done in the workspace count, together with these events."""
        self._settle(events, {}, self.files.uncommitted())

    async def inherit(
        self, journal: Mapping[str, bytes], changes: Mapping[str, Changes], source: RunFiles, event: NewEvent
    ) -> None:
        """Begin with entries of another run's journal and what they say was done in its workspace, all at once."""
        adopted = await self.files.adopt(source, list(changes.values()))
        told = {key: codec.encode(done).encode() for key, done in zip(changes, adopted, strict=True)}
        journal = {**journal, **told}
        self._journal = {**self._journal, **journal}
        entries = {key: await self._small(msgspec.Raw(text)) for key, text in journal.items()}
        self._settle([event], entries, self.files.uncommitted())
        await self.emitter.flush()

    def tell(self, event: NewEvent) -> None:
        """Log an event when what was done in the workspace counts, not before."""
        self._news.append(event)

    def for_step(self, index: int) -> ToolContext:
        """What the tool of step `index`, counted from 0, may use."""
        return StepContext(self, index)

    def _begin(self, key: str) -> None:
        note = codec.encode(key)
        if self._journal.get(STARTED) == note.encode():
            raise Interrupted
        self.emitter.keep(Writes(journal={STARTED: note}))

    def _settle(self, events: Sequence[NewEvent], journal: dict[str, str], files: dict[str, FileEntry | None]) -> None:
        news, self._news = self._news, []
        self.emitter.keep(Writes(events=[*news, *events], journal=journal, files=files))

    async def _small(self, value: object) -> str:
        """The JSON for the journal, of the value itself or of where it is kept."""
        text = codec.encode(value)
        if len(text) > LARGE_BYTES:
            text = codec.encode(Elsewhere(await self.files.keep(text.encode())))
        return text

    async def _recall(self, text: bytes, kind: type[T]) -> T:
        return msgspec.json.decode(await whole(text, self.files), type=kind)


def files_key(key: str) -> str:
    """The journal's entry of what was done in the workspace under `key`."""
    return f"{key}:files"


async def whole(text: bytes, files: RunFiles) -> bytes:
    """What a journal's entry stands for, also if it is kept elsewhere. Raises FileMissing, FilesUnavailable."""
    if not text.startswith(b'{"$kept":'):
        return text
    return await files.kept(msgspec.json.decode(text, type=Elsewhere).kept)


class StepContext:
    """The ToolContext of one step."""

    def __init__(self, context: RunContext, index: int) -> None:
        self.run_id = context.run.id
        self.call = f"step-{index}"
        self.files = context.files
        self.executor = context.executor
        self._emitter = context.emitter
        self._tell = context.tell
        self._index = index

    async def output(self, stream: Literal["stdout", "stderr"], text: str, *, more: bool = False) -> None:
        """Log a line of output, or a part of it."""
        await self._emitter.emit(ToolOutput(stream=stream, text=text, more=more), step=self._index)

    async def message(self, text: str) -> None:
        """Say something to whoever watches."""
        await self._emitter.emit(Message(text=text), step=self._index)

    def changed(self, changes: FileChanges) -> None:
        """Log what happened to the workspace, as soon as it counts."""
        for file in changes.written:
            self._tell(new_event(Artifact(path=file.path, size_bytes=file.size_bytes), self._index))
        for path in changes.deleted:
            self._tell(new_event(Artifact(path=path, deleted=True), self._index))
        for path in changes.skipped:
            note = f"not stored: '{path}' is a link, a special file, or has a name that is not allowed"
            self._tell(new_event(Log(level="warning", message=note), self._index))
