"""Tables of schedules, for people."""

from collections.abc import Iterable

from rich.text import Text

from swissbrain.cli.layout import Column, Details, Rows
from swissbrain.cli.screen import line
from swissbrain.cli.terminal import date_time
from swissbrain.schedules import LastTick, Schedule, ScheduleSummary


def schedules_table(schedules: Iterable[ScheduleSummary]) -> Rows:
    """Return a table with a row for each schedule."""
    columns = [Column(name) for name in ("schedule", "cron", "next", "last")] + [Column("title", flexible=True)]
    return Rows(columns, map(_row, schedules))


def schedule_table(schedule: Schedule) -> Details:
    """Return a table with the next times of a schedule, in the time of this host."""
    details = [
        (Text("schedule"), line(schedule.schedule_id)),
        (Text("cron"), line(f"{schedule.cron}, {schedule.timezone}")),
        (Text("overlap"), line(schedule.overlap)),
        *((Text("next" if not number else ""), Text(date_time(at))) for number, at in enumerate(schedule.next_ms)),
        (Text("last"), line(_last(schedule.last))),
        (Text("title"), line(schedule.title)),
    ]
    if schedule.paused:
        details.insert(3, (Text("next"), Text("paused")))
    return Details(details)


def _row(schedule: ScheduleSummary) -> list[Text]:
    following = "paused" if schedule.paused else date_time(schedule.next_ms[0]) if schedule.next_ms else ""
    cron = line(f"{schedule.cron}, {schedule.timezone}")
    return [line(schedule.schedule_id), cron, Text(following), line(_last(schedule.last)), line(schedule.title)]


def _last(last: LastTick | None) -> str:
    return f"{last.outcome} {date_time(last.at_ms)}" if last else ""
