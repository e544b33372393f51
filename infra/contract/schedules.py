"""Schedules: a run that is created again and again, at the times of a cron expression.

The record in Redis is the wanted state of a schedule; QStash follows. Each change has a revision, which stays in the
set of unconfirmed changes until QStash has this revision or a later one. So a crash in between leaves a trace, from
which the change is completed later.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from infra.contract.errors import InvalidInput
from infra.contract.runs import MAX_METADATA_KEYS, RunSpec

TICK_PATH = "/internal/schedule-tick"
RECOVERY_PATH = "/internal/recover"
"""Paths of the API that QStash calls: for a tick of a schedule, and for a recovery tick."""
MAX_SCHEDULES = 100
"""Number of schedules that a user may have."""
MAX_RUN_BYTES = 256 * 1024
"""Size of the run of a schedule as JSON."""
METADATA_KEY = "schedule"
"""Key under which the runs of a schedule have its id in their metadata."""


class Overlap(StrEnum):
    """Effect of a tick while the last run of the schedule has not ended.

    SKIP: it creates no run. QUEUE: it creates a run nevertheless, which begins as soon as a worker is free. CANCEL: it
    cancels the last run, and creates one.
    """

    SKIP = "skip"
    QUEUE = "queue"
    CANCEL = "cancel"


class TickOutcome(StrEnum):
    """Decision about a tick. PAUSED, GONE: the schedule is paused, or no longer exists."""

    STARTED = "started"
    SKIPPED = "skipped"
    PAUSED = "paused"
    GONE = "gone"


class ScheduleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Wanted schedule; `run` is created at each tick. `cron` has five fields, which are read in the `timezone`."""

    cron: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    timezone: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "UTC"
    overlap: Overlap = Overlap.SKIP
    paused: bool = False
    run: RunSpec

    def check_run(self) -> None:
        """Raise InvalidInput unless the run can be created at any time."""
        try:
            self.run.check()
        except InvalidInput as exc:
            raise InvalidInput(str(exc), f"$.run{exc.field.removeprefix('$')}") from exc
        for name in ("start_at_ms", "fork_of", "continue_of"):
            if getattr(self.run, name) is not None:
                raise InvalidInput("a run of a schedule cannot have this field", f"$.run.{name}")
        if METADATA_KEY in self.run.metadata or len(self.run.metadata) >= MAX_METADATA_KEYS:
            raise InvalidInput(
                f"the key '{METADATA_KEY}' is taken, and at most {MAX_METADATA_KEYS - 1} others are allowed",
                "$.run.metadata",
            )


class LastTick(msgspec.Struct, frozen=True, kw_only=True):
    """Last tick of a schedule, or its last start by hand. `run_id`: the new run, or the one because of which it was
    skipped."""

    at_ms: int
    outcome: TickOutcome
    run_id: str


class ScheduleHead(msgspec.Struct, frozen=True, kw_only=True):
    """Schedule without its run. `title`: title of its runs; `confirmed`: QStash knows this `revision`."""

    id: str
    user: str
    cron: str
    timezone: str
    overlap: Overlap
    paused: bool
    title: str
    created_ms: int
    revision: int
    confirmed: bool
    deleting: bool
    last: LastTick | None = None


class ScheduleRecord(ScheduleHead, frozen=True, kw_only=True):
    """Schedule as stored."""

    run: RunSpec

    @property
    def spec(self) -> ScheduleSpec:
        """Wanted schedule as it is now."""
        return ScheduleSpec(
            cron=self.cron, timezone=self.timezone, overlap=self.overlap, paused=self.paused, run=self.run
        )


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """Decision about a tick. `run_id`: as in LastTick; `cancels`: run to be cancelled first; None: no run."""

    outcome: TickOutcome
    run_id: str | None = None
    cancels: str | None = None
