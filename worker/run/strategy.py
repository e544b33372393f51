"""Port to the way in which a run's work is done: the runner is given one Strategy and calls it for each claimed run."""

from collections.abc import Callable, Mapping
from typing import Protocol

from infra.contract.runs import RunError
from worker.run.context import RunContext


class StepFailed(Exception):
    """Failure of a step that would recur in another attempt: the run fails with `error`.

    `result`: partial result of the run, if there is one.
    """

    def __init__(self, error: RunError, result: Mapping[str, object] | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.result = result


class Postponed(Exception):
    """The run cannot continue now, and returns to the queue until `delay_ms` have passed.

    `reason` is for programs. `burn`: whether the attempt counts.
    """

    def __init__(self, reason: str, message: str, *, delay_ms: int, burn: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.delay_ms = delay_ms
        self.burn = burn


class Drained(Postponed):
    """The worker is draining, and the run has reached a step boundary."""

    def __init__(self) -> None:
        super().__init__("drained", "", delay_ms=0, burn=False)


class Strategy(Protocol):
    """Way to do a run's work, such as walking an explicit plan."""

    async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
        """Do all steps whose results the journal does not hold yet; return the run's result.

        `draining` is called at each step boundary; if it returns True, raise Drained. Raises StepFailed,
        Postponed, Waits, FilesUnavailable, HostExhausted, ExecutorUnavailable, LeaseLost; any other exception is a bug
        and fails the run.
        """
        ...
