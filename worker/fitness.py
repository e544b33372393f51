"""Fitness of this worker for runs: checks of its object store and its sandbox.

A worker with a wrong key or without a sandbox would fail every run that it claims, and it would claim many, because it
is done with each so soon. Therefore it claims nothing until its checks have passed. A failure of a run that indicts the
store or the sandbox raises a doubt, and the worker is checked again before it claims the next run.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

from infra.contract.errors import ContractError
from infra.logging import log

FIRST_RETRY_S = 1.0
MAX_RETRY_S = 60.0
"""Longest pause between two checks of an unfit worker. The first one is FIRST_RETRY_S, each further one twice that."""
CHECK_S = 30.0
"""Longest duration of one check."""


class Fitness:
    """State of the checks, which `check_forever` executes whenever there is a doubt.

    `checks` are functions that raise an error if the part that they are named after cannot be used. A worker without
    checks is always fit.
    """

    def __init__(self, checks: Mapping[str, Callable[[], Awaitable[None]]] = MappingProxyType({})) -> None:
        self._checks = checks
        self._doubted = asyncio.Event()
        self._fit = asyncio.Event()
        self._problem = ""
        self._failing = frozenset(checks)
        if checks:
            self._doubted.set()
        else:
            self._fit.set()

    @property
    def is_fit(self) -> bool:
        """True if the checks have passed since the last doubt."""
        return self._fit.is_set()

    @property
    def problem(self) -> str:
        """Result of the last check: the part that failed, and why; empty if none failed. Any thread may read it."""
        return self._problem

    @property
    def parts(self) -> Sequence[str]:
        """Names of the parts that are checked."""
        return [*self._checks]

    def passed(self, part: str) -> bool:
        """Return whether a part passed its last check. Any thread may ask."""
        return part not in self._failing

    async def until_fit(self) -> None:
        """Return once the checks have passed."""
        await self._fit.wait()

    def doubt(self) -> None:
        """Consider the worker unfit until its checks have passed again."""
        if self._checks:
            self._fit.clear()
            self._doubted.set()

    async def check_forever(self) -> None:
        """Check the worker after each doubt, and again until it is fit."""
        pause_s = FIRST_RETRY_S
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            self._problem = await self._check(pause_s)
            if self._problem:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_RETRY_S)
                self._doubted.set()
            # A doubt that arose meanwhile may concern something that was checked before.
            elif not self._doubted.is_set():
                pause_s = FIRST_RETRY_S
                self._fit.set()
                log("worker.fit")

    async def _check(self, pause_s: float) -> str:
        """Execute the checks at the same time; return the problems, and log each."""
        reasons = await asyncio.gather(*map(_reason, self._checks.values()))
        problems = {part: reason for part, reason in zip(self._checks, reasons, strict=True) if reason}
        for part, reason in problems.items():
            log("worker.unfit", level=logging.WARNING, part=part, reason=reason, retry_s=pause_s)
        self._failing = frozenset(problems)
        return "; ".join(f"{part}: {reason}" for part, reason in problems.items())


async def _reason(check: Callable[[], Awaitable[None]]) -> str:
    """Execute a check; return why it failed, or an empty text."""
    try:
        async with asyncio.timeout(CHECK_S):
            await check()
    except TimeoutError:
        return f"no answer within {CHECK_S:g} s"
    except (ContractError, OSError) as exc:
        return str(exc) or type(exc).__name__
    return ""
