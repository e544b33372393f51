"""What a run's work may use: its journal, its log, its workspace, its executor."""

from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import msgspec

from infra.contract import codec
from infra.contract.models import Claim, FileChanges, NewEvent
from infra.contract.ports import Executor, RunFiles
from worker.emitter import LogEmitter
from worker.tools.base import ToolContext

T = TypeVar("T")


class RunContext:
    """One claimed run, for the code that works on it."""

    def __init__(self, claim: Claim, emitter: LogEmitter, files: RunFiles, executor: Executor) -> None:
        self.run = claim.run
        self.emitter = emitter
        self.files = files
        self.executor = executor
        self._journal = claim.journal

    async def once(
        self,
        key: str,
        kind: type[T],
        call: Callable[[], Awaitable[T]],
        *,
        done: Callable[[T], NewEvent] | None = None,
    ) -> T:
        """The journaled result of `key`, or that of `call`, which is journaled then, with the event `done` says.

        What was journaled before is stored before `call` begins, so a completed step is never executed again; `call`
        itself is executed again if the worker dies while it runs. Raises LeaseLost, and whatever `call` raises,
        which is not journaled.
        """
        if key in self._journal:
            return msgspec.json.decode(self._journal[key], type=kind)
        await self.emitter.flush()
        value = await call()
        self.emitter.journal(key, codec.encode(value), done(value) if done else None)
        return value

    def for_step(self, index: int) -> ToolContext:
        """What the tool of step `index`, counted from 0, may use."""
        return StepContext(self, index)


class StepContext:
    """The ToolContext of one step."""

    def __init__(self, context: RunContext, index: int) -> None:
        self.run_id = context.run.id
        self.call = f"step-{index}"
        self.files = context.files
        self.executor = context.executor
        self._emitter = context.emitter
        self._index = index

    async def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        """Log a line of output."""
        await self._emitter.emit("tool.output", {"stream": stream, "text": text}, step=self._index)

    async def message(self, text: str) -> None:
        """Say something to whoever watches."""
        await self._emitter.emit("message", {"text": text}, step=self._index)

    async def changed(self, changes: FileChanges) -> None:
        """Log what happened to the workspace."""
        for file in changes.written:
            await self._emitter.emit("artifact", {"path": file.path, "size_bytes": file.size_bytes}, step=self._index)
        for path in changes.deleted:
            await self._emitter.emit("artifact", {"path": path, "deleted": True}, step=self._index)
        for path in changes.skipped:
            note = f"not stored: '{path}' is a link, a special file, or has a name that is not allowed"
            await self._emitter.emit("log", {"level": "warning", "message": note}, step=self._index)
