"""What a tool is: a function from typed arguments and a ToolContext to a typed result."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from infra.contract.models import FileChanges
from infra.contract.ports import Executor, RunFiles


class ToolResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all results. A result is kept in the run's journal, so it is small: large output is a file.

    `kept` names the files with the whole output, if there was more than the log took.
    """

    kept: tuple[str, ...] = ()


class ToolFailed(Exception):
    """A tool did its work and the answer is no: exit code not 0, a missing file, a timeout.

    `code` is stable and goes into the run's error; `result` is what is known all the same.
    """

    def __init__(self, code: str, message: str, result: ToolResult | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.result = result


class ToolContext(Protocol):
    """What a running tool may use."""

    run_id: str
    call: str
    """Name of this call within the run, such as `step-3`: the same again if the call is repeated after a crash."""
    files: RunFiles
    executor: Executor

    async def output(self, stream: Literal["stdout", "stderr"], text: str, *, more: bool = False) -> None:
        """Log a line of output live (event `tool.output`), or a part of it: `more` says that the line goes on."""
        ...

    async def message(self, text: str) -> None:
        """Say something to whoever watches (event `message`)."""
        ...

    def changed(self, changes: FileChanges) -> None:
        """Log stored and deleted files (events `artifact`) and report skipped ones (event `log`), once they count."""
        ...


@dataclass(frozen=True)
class Tool:
    """An entry of the registry: the arguments' type and the function, and whether it needs the executor.

    `idempotent`: executing the call again after a crash does no harm, as for all that acts on nothing but the
    workspace, where the first execution left no trace. A call of another tool that was interrupted fails the run.
    """

    name: str
    args: type[Any]
    run: Callable[[Any, ToolContext], Awaitable[ToolResult]]
    idempotent: bool
    executes: bool = False
