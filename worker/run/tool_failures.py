"""Failures of tool calls: the codes of those that another attempt would meet again, and the timeout of a call."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from infra.contract.errors import (
    ContractError,
    ExecutorUnavailable,
    FileMissing,
    InputChanged,
    InvalidInput,
    LimitExceeded,
)
from infra.contract.runs import MAX_UNABLE
from worker.toolkit.base import ToolFailed

_CODES: dict[type[ContractError], str] = {
    ExecutorUnavailable: "executor_unavailable",
    FileMissing: "file_missing",
    InputChanged: "input_changed",
    InvalidInput: "invalid_input",
    LimitExceeded: "limit_exceeded",
}


def failure_code(failure: ToolFailed | ContractError, unable: int) -> str | None:
    """Return the code of a failure of a call; None if it must be left to the runner, because it may be transient.

    `unable`: number of workers in a row that were unable to execute this call.
    """
    if isinstance(failure, ToolFailed):
        return failure.code
    # Another worker may have what this one lacks.
    if isinstance(failure, ExecutorUnavailable) and unable < MAX_UNABLE:
        return None
    return _CODES.get(type(failure))


def call_duration_ms(began: float, result: Mapping[str, Any]) -> int:
    """Return the duration of a call in ms, which this worker has made or adopted at `began` of its monotonic clock.

    The program of an adopted call has run before. Time in which nobody had the run does not count.
    """
    ran_ms: int = result.get("duration_ms", 0)
    return max(int((time.monotonic() - began) * 1000), ran_ms)


class CallTime:
    """Time of a call: `timeout_s` seconds, of which `left_s` are left if a former owner of the run has begun the call.

    None sets no limit.
    """

    def __init__(self, timeout_s: float | None, left_s: float | None = None) -> None:
        left_s = timeout_s if left_s is None else left_s
        self._timeout_s = timeout_s
        self._deadline = asyncio.timeout(left_s)
        self._ends_at = math.inf if left_s is None else time.monotonic() + left_s

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self._ends_at - time.monotonic()

    def restart(self) -> None:
        """Start the time again, because the call is executed again."""
        if self._timeout_s is not None:
            self._ends_at = time.monotonic() + self._timeout_s
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._timeout_s)

    @asynccontextmanager
    async def limit(self, message: str) -> AsyncIterator[None]:
        """Raise ToolFailed with code `timeout` once the time is over.

        `message` has a `{:g}` in place of the seconds, and names the setting.
        """
        try:
            async with self._deadline:
                yield
        except TimeoutError:
            # A TimeoutError of the tool itself, or of the run's deadline, is not this timeout.
            if not self._deadline.expired():
                raise
            raise ToolFailed("timeout", message.format(self._timeout_s)) from None
