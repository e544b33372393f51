"""Types of the API's responses that concern schedules; they repeat its contract, as those of `swissbrain.models`."""

from typing import Any

from swissbrain.models import Response


class LastTick(Response, frozen=True):
    """Last tick of a schedule. `outcome`: `started`, or `skipped` because the run `run_id` had not ended."""

    at_ms: int
    outcome: str
    run_id: str


class ScheduleSummary(Response, frozen=True):
    """Schedule in a list. `cron` is read in the `timezone`; `next_ms`: its next times, none if it is paused.

    `overlap`: what a tick does while the last run has not ended: `skip`, `queue` or `cancel`. `pending`: the last
    change takes effect later, because QStash could not be reached.
    """

    schedule_id: str
    title: str
    cron: str
    timezone: str
    overlap: str
    paused: bool
    pending: bool
    created_ms: int
    next_ms: list[int]
    last: LastTick | None


class Schedule(ScheduleSummary, frozen=True):
    """Schedule with the fields of the run that it creates; None in answers to a token that may not read."""

    run: dict[str, Any] | None


class ScheduleList(Response, frozen=True):
    """All schedules of a user, oldest first."""

    schedules: list[ScheduleSummary]


class TickResult(Response, frozen=True):
    """Result of a start by hand: `started`, or `skipped` because the run `run_id` has not ended."""

    outcome: str
    run_id: str | None
