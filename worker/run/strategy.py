"""Port to the way in which a run's work is done: the runner is given one Strategy and calls it for each claimed run."""

from collections.abc import Callable
from typing import Protocol

from infra.contract.runs import RunError
from worker.run.context import RunContext


class StepFailed(Exception):
    """Failure of a step that would recur in another attempt: the run fails with `error`."""

    def __init__(self, error: RunError) -> None:
        super().__init__(error.message)
        self.error = error


class Drained(Exception):
    """The worker is draining, and the run has reached a step boundary."""


class Strategy(Protocol):
    """Way to do a run's work, such as walking an explicit plan."""

    async def work(self, context: RunContext, draining: Callable[[], bool]) -> dict[str, object]:
        """Do all steps whose results the journal does not hold yet; return the run's result.

        `draining` is called at each step boundary; if it returns True, raise Drained. Raises StepFailed, Drained,
        Waits, FilesUnavailable, HostExhausted, ExecutorUnavailable, LeaseLost; any other exception is a bug and fails
        the run.
        """
        ...
