"""Executions of programs in the journal of a run, for executors whose programs outlive their worker.

How is a program started only once, although its worker may be lost at any time?

1. Before such an executor starts anything, it records the execution (`ExecutionCaller.record`): its number, and what
   the next owner of the run needs to find it. It is *open* from then on. Numbers are never used twice.
2. An owner that comes to a call with an open execution adopts that one. Only if nothing of it is left, and it has left
   no result, is the call executed anew, under the next number; if the call must not be repeated, it is interrupted.
3. The write that journals the outcome of the call closes the execution. Once that is stored, it is discarded.

The time of a call is counted from its first start. Both owners know the clock of Redis from their claims, and add what
has passed since then by their own monotonic clocks; so it does not matter whether the clocks of their hosts agree.

An adopting executor passes on all lines again. The number of outputs that are in the log is stored in the same write
as the outputs, so that those are left out, and none is missing.
"""

import time
from collections.abc import Callable

import msgspec
from msgspec import structs

from infra.contract.events import ToolOutput
from infra.contract.execution import Command, Execution, Executor, OnLine
from infra.contract.journal import EXECUTION, EXECUTIONS, LOGGED
from infra.contract.lending import ExecutorFiles, OpenExecution
from infra.contract.queue import Claim, Writes
from infra.contract.redis_store import codec
from infra.logging import log
from worker.run.emitter import LogEmitter

TAKE_OVER_S = 60.0
"""Time for an adopted call whose time is over: for taking over the result of a program that has ended by then. One that
still runs is ended by its runner (`LATE_S` in `worker.run.call_context`)."""


class CallInterrupted(Exception):
    """A non-idempotent call was started before and its worker was lost: its effects are unknown."""


class RunExecutions:
    """Executions of one claimed run. Only one is under way at a time."""

    def __init__(
        self, claim: Claim, emitter: LogEmitter, executor: Executor, continues_elsewhere: Callable[[], bool]
    ) -> None:
        self._run_id = claim.run.id
        self._emitter = emitter
        self._executor = executor
        self._continues_elsewhere = continues_elsewhere
        journal = claim.journal
        self._claimed_ms, self._claimed_at = claim.claimed_ms, time.monotonic()
        self._open = msgspec.json.decode(journal.get(EXECUTION, b"null"), type=OpenExecution | None)
        self._last = int(journal.get(EXECUTIONS, b"0"))
        self._logged = int(journal.get(LOGGED, b"0"))
        self._passed = 0
        self._is_counting = False
        self._closed: list[OpenExecution] = []

    def is_open(self, call: str) -> bool:
        """Return whether an execution of this call is open, so that it is adopted and not started."""
        return self._open is not None and self._open.call == call

    def passed_s(self, call: str) -> float:
        """Return the seconds since the first start of a call: 0, unless an execution of it is open."""
        if not (self._open and self.is_open(call) and self._open.call_began_ms and self._claimed_ms):
            return 0.0
        return max(0, self._now_ms() - self._open.call_began_ms) / 1000

    def time_left(self, call: str, timeout_s: float) -> float:
        """Return the seconds that are left of the time of a call: all, unless an execution of it is open."""
        left_s = timeout_s - self.passed_s(call)
        return left_s if left_s > 0 else min(timeout_s, TAKE_OVER_S)

    async def execute(
        self,
        command: Command,
        files: ExecutorFiles,
        on_line: OnLine,
        warn: Callable[[str], None],
        restarted: Callable[[], Command],
        *,
        repeatable: bool,
    ) -> Execution:
        """Adopt the open execution of the call, or execute the command. Raises CallInterrupted as described above.

        `restarted` is called if an execution is lost: it starts the time of the call again, and returns the command to
        execute then.
        """
        caller = _Caller(self, warn)
        self._passed = 0
        try:
            if self._open and self.is_open(command.call):
                begun, self._is_counting = self._open, True
                log("execution.adopted", run_id=self._run_id, call=begun.call, number=begun.number)
                if ended := await self._executor.adopt(command, begun, files, on_line, caller):
                    return ended
                self.close()
                if not repeatable:
                    raise CallInterrupted
                command = restarted()
                caller.began_at = time.monotonic()
                warn("the program was lost together with its pod and left no result; it is started again")
            # Until the executor has recorded an execution, nothing is counted: most executors never do.
            self._is_counting = False
            return await self._executor.execute(command, files, on_line, caller)
        finally:
            self._is_counting = False

    async def log_output(self, output: ToolOutput, step: int) -> None:
        """Log a line of output, unless a former owner of the run has logged it."""
        if not self._is_counting:
            await self._emitter.emit(output, step=step)
            return
        self._passed += 1
        if self._passed > self._logged:
            self._logged = self._passed
            await self._emitter.emit(output, step=step, journal={LOGGED: str(self._logged)})

    def closing(self, call: str) -> dict[str, str]:
        """Return the changes of the journal that close the execution of a call whose outcome is being journaled."""
        if self._open is None or not self.is_open(call):
            return {}
        self._closed.append(self._open)
        self._open = None
        return {EXECUTION: ""} | self._uncount("")

    def close(self) -> None:
        """Close the open execution, because nothing is left to adopt."""
        if self._open:
            self._emitter.put(Writes(journal=self.closing(self._open.call)))

    async def discard(self, *, also_open: bool = False) -> None:
        """Discard the closed executions; call this once the writes that closed them are stored.

        `also_open`: the run has ended, or waits for people, so the open one will not be adopted.
        """
        closed, self._closed = self._closed, []
        if self._open and also_open:
            closed.append(self._open)
        for begun in closed:
            await self._executor.discard(self._run_id, begun)

    async def record(self, begun: OpenExecution, began_at: float) -> None:
        """Journal the execution as the open one, which replaces any other; return once that is stored.

        `began_at`: when its call began, by the monotonic clock.
        """
        began_ms = self._now_ms() - int(1000 * (time.monotonic() - began_at))
        if self._open:
            self._closed.append(self._open)
        begun = structs.replace(begun, call_began_ms=began_ms if self._claimed_ms else 0)
        self._open, self._last = begun, begun.number
        self._passed, self._is_counting = 0, True
        journal = {EXECUTION: codec.encode(begun), EXECUTIONS: str(begun.number)}
        self._emitter.put(Writes(journal=journal | self._uncount("0")))
        await self._emitter.flush()

    def _uncount(self, value: str) -> dict[str, str]:
        """Return the change of the journal that sets the number of logged outputs back, if there are some."""
        counted, self._logged = self._logged, 0
        return {LOGGED: value} if counted else {}

    def _now_ms(self) -> int:
        """Return the time by the clock of Redis."""
        return self._claimed_ms + int(1000 * (time.monotonic() - self._claimed_at))

    def next_number(self) -> int:
        """Return the number of the next execution."""
        return self._last + 1

    def continue_elsewhere(self) -> bool:
        """Return whether another worker continues the run."""
        return self._continues_elsewhere()


class _Caller:
    """ExecutionCaller of one execution; implements the port `ExecutionCaller`."""

    def __init__(self, executions: RunExecutions, warn: Callable[[str], None]) -> None:
        self.began_at = time.monotonic()
        self._executions = executions
        self._warn = warn

    @property
    def number(self) -> int:
        return self._executions.next_number()

    async def record(self, begun: OpenExecution) -> None:
        await self._executions.record(begun, self.began_at)

    def continues_elsewhere(self) -> bool:
        return self._executions.continue_elsewhere()

    def warn(self, message: str) -> None:
        self._warn(message)
