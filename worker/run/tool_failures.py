"""Failures of tool calls: the codes of those that another attempt would meet again, and the timeout of a call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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


@asynccontextmanager
async def call_timeout(timeout_s: float | None, message: str) -> AsyncIterator[None]:
    """Raise ToolFailed with code `timeout` once `timeout_s` has passed; None sets no limit.

    `message` has a `{:g}` in place of the seconds, and names the setting.
    """
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            yield
    except TimeoutError:
        # A TimeoutError of the tool itself, or of the run's deadline, is not this timeout.
        if not deadline.expired():
            raise
        raise ToolFailed("timeout", message.format(timeout_s)) from None
