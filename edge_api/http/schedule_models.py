"""Requests and responses that concern schedules."""

import time
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from edge_api.http.request_models import RequestModel
from infra.contract.errors import InvalidInput
from infra.contract.runs import RunSpec
from infra.contract.schedules import LastTick, Overlap, ScheduleHead, ScheduleRecord, ScheduleSpec, TickOutcome

NEXT_TIMES = 5

CronText = Annotated[
    str,
    msgspec.Meta(
        min_length=1, max_length=200, description="Five fields: minute, hour, day of the month, month, day of the week."
    ),
]
ZoneName = Annotated[
    str, msgspec.Meta(min_length=1, max_length=64, description="IANA name of the time zone, such as `Europe/Zurich`.")
]


class CreateSchedule(RequestModel, frozen=True):
    """Schedule that creates and starts `run` whenever `cron` is due in the `timezone`."""

    cron: CronText
    run: RunSpec
    timezone: ZoneName = "UTC"
    overlap: Overlap = Overlap.SKIP
    paused: bool = False

    @property
    def spec(self) -> ScheduleSpec:
        """Wanted schedule."""
        return ScheduleSpec(
            cron=self.cron, timezone=self.timezone, overlap=self.overlap, paused=self.paused, run=self.run
        )


class ChangeSchedule(RequestModel, frozen=True):
    """Changes of a schedule; what is not given stays. `run` is replaced as a whole."""

    cron: CronText | UnsetType = UNSET
    run: RunSpec | UnsetType = UNSET
    timezone: ZoneName | UnsetType = UNSET
    overlap: Overlap | UnsetType = UNSET
    paused: bool | UnsetType = UNSET

    def applied_to(self, spec: ScheduleSpec) -> ScheduleSpec:
        """Return a spec with the changes."""
        given = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not UNSET}
        return msgspec.structs.replace(spec, **given)


class ScheduleSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Schedule in a list. Times are ms since the epoch.

    `next_ms`: when it is due next, empty if it is paused, or in a time zone that the API's host does not know. `last`:
    its last tick or start by hand, null if there was none. `pending`: QStash does not know the last change yet, which
    is then carried out later.
    """

    schedule_id: str
    title: str
    cron: str
    timezone: str
    overlap: Overlap
    paused: bool
    pending: bool
    created_ms: int
    next_ms: list[int]
    last: LastTick | None

    @classmethod
    def of(cls, head: ScheduleHead) -> "ScheduleSummary":
        """Return the schedule as it is shown."""
        return cls(**_shown(head))


class Schedule(ScheduleSummary, frozen=True, kw_only=True):
    """Schedule with the run that it creates; null in answers to a token that may not read."""

    run: RunSpec | None

    @classmethod
    def of_record(cls, record: ScheduleRecord) -> "Schedule":
        """Return the schedule as it is shown."""
        return cls(**_shown(record), run=record.run)


class ScheduleList(msgspec.Struct, frozen=True, kw_only=True):
    """All schedules of the user, oldest first. `unreadable`: ids of those whose records are damaged."""

    schedules: list[ScheduleSummary]
    unreadable: list[str] | UnsetType = UNSET


class TickResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a tick. `run_id`: the run that was started, or because of which it was skipped; null without one."""

    outcome: TickOutcome
    run_id: str | None


class RecoveryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a recovery tick. `next_ms`: time until a lease expires or a run is due; null if none is.

    `schedules`: number of pending changes that were sent to QStash; `webhooks`: number of events.
    """

    next_ms: int | None
    schedules: int
    webhooks: int


def _next_times(head: ScheduleHead) -> list[int]:
    from infra.cron import Cron  # with time zones, which a cold start for other requests does not need

    try:
        return [] if head.paused else Cron(head.cron, head.timezone).following(int(time.time() * 1000), NEXT_TIMES)
    except InvalidInput:
        return []  # a host with newer time zones has created the schedule


def _shown(head: ScheduleHead) -> dict[str, Any]:
    return {
        "schedule_id": head.id,
        "title": head.title,
        "cron": head.cron,
        "timezone": head.timezone,
        "overlap": head.overlap,
        "paused": head.paused,
        "pending": not head.confirmed,
        "created_ms": head.created_ms,
        "next_ms": _next_times(head),
        "last": head.last,
    }
