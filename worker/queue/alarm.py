"""Timer for the next claim of a worker that no wake token has woken: a lease expires or a delayed run is due."""

import asyncio
import random
import time

JITTER_S = 0.3
"""Spread of the workers that wait for the same moment: the claim of the first one resets the alarms of the others."""
LATE_S = 0.5
"""Further delay of a worker that lacks a program. It exceeds JITTER_S, so that an idle worker without such a lack comes
first to the runs that were given back."""


class Alarm:
    """Deadline that can be moved while a task waits for it.

    Two sources set it. Replies to claims (`claim_answered`) say when the next lease expires or the next run is due.
    Control messages (`set`, `hasten`, `urge`) report changes made by other processes since then.
    """

    def __init__(self) -> None:
        self._deadline: float | None = None
        self._announced: float | None = None
        self._urgent: float | None = None
        self._urgent_from = time.monotonic()
        self._changed = asyncio.Event()
        self._late_until = time.monotonic()

    def be_late(self, for_s: float) -> None:
        """Let the other workers go first for `for_s` seconds: deadlines set meanwhile are LATE_S later."""
        self._late_until = time.monotonic() + for_s

    def set(self, after_ms: int) -> None:
        """Move the deadline to `after_ms` from now, earlier or later (control message `next`)."""
        self._relax()
        self._announced = self._deadline_in(after_ms)
        self._move(self._announced)

    def hasten(self, after_ms: int) -> None:
        """Move the deadline to `after_ms` from now, unless it is earlier already (control message `due`)."""
        deadline = self._deadline_in(after_ms)
        self._announced = _earliest(self._announced, deadline)
        self._move(_earliest(self._deadline, deadline))

    def urge(self, after_ms: int) -> None:
        """Move the deadline as `hasten` does, for workers without a free slot too (control message `recover`)."""
        self._urgent_from, self._urgent = time.monotonic() + after_ms / 1000, self._deadline_in(after_ms)
        self.hasten(after_ms)

    def claim_sent(self) -> None:
        """Forget the announcements so far: the reply to the claim sent now will take them into account."""
        self._announced = None
        self._relax()

    def claim_answered(self, after_ms: int | None) -> None:
        """Move the deadline to what the reply to the claim says (None: nothing is expected)."""
        # Control messages arrive on another connection than the reply. One that arrived since the claim was sent may
        # report a change that the reply does not include, so the earlier of the two counts.
        self._move(_earliest(self._announced, None if after_ms is None else self._deadline_in(after_ms)))

    async def wait(self) -> None:
        """Return at the deadline and clear it."""
        while self._deadline is None or (remaining_s := self._deadline - time.monotonic()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if self._deadline is None else remaining_s):
                    await self._changed.wait()
            except TimeoutError:
                break
        self._deadline = None

    async def wait_urgent(self) -> None:
        """Return at the deadline that `urge` has set, unless another worker's claim comes first."""
        while self._urgent is None or (remaining_s := self._urgent - time.monotonic()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if self._urgent is None else remaining_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
        self._urgent = None

    def _relax(self) -> None:
        """Forget the urgent deadline if the claim made now, by this or another worker, does what it is for."""
        if time.monotonic() >= self._urgent_from:
            self._urgent = None

    def _deadline_in(self, after_ms: int) -> float:
        now = time.monotonic()
        late_s = LATE_S if now < self._late_until else 0.0
        return now + after_ms / 1000 + random.uniform(0, JITTER_S) + late_s  # noqa: S311

    def _move(self, deadline: float | None) -> None:
        self._deadline = deadline
        self._changed.set()


def _earliest(*deadlines: float | None) -> float | None:
    return min((deadline for deadline in deadlines if deadline is not None), default=None)
