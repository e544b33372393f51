# Generated from swissbrain/_async by `python -m scripts.unasync`; change it there.
"""Methods of the client for schedules."""

from collections.abc import Mapping
from typing import Any

from swissbrain import schedule_endpoints
from swissbrain._sync.transport import Transport
from swissbrain.plan import NewRun
from swissbrain.schedules import Schedule, ScheduleSummary, TickResult


class ScheduleMethods:
    """Methods for schedules, which create a run again and again."""

    _api: Transport

    def create_schedule(
        self,
        cron: str,
        run: NewRun | Mapping[str, Any],
        *,
        timezone: str | None = None,
        overlap: str | None = None,
        paused: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Schedule:
        """Create a schedule that creates and starts `run` whenever `cron` is due in the `timezone` (UTC by default).

        `overlap`: what happens while the last run has not ended: `skip` (the default), `queue` or `cancel`. The key
        works as that of `create_run`.
        """
        request = schedule_endpoints.create_schedule(
            cron, run, timezone=timezone, overlap=overlap, paused=paused, idempotency_key=idempotency_key
        )
        return self._api.ask(request)

    def schedules(self) -> list[ScheduleSummary]:
        """Return all schedules, oldest first."""
        return (self._api.ask(schedule_endpoints.list_schedules())).schedules

    def get_schedule(self, schedule_id: str) -> Schedule:
        """Return a schedule with its next times and its last tick."""
        return self._api.ask(schedule_endpoints.get_schedule(schedule_id))

    def change_schedule(
        self,
        schedule_id: str,
        *,
        cron: str | None = None,
        run: NewRun | Mapping[str, Any] | None = None,
        timezone: str | None = None,
        overlap: str | None = None,
        paused: bool | None = None,
    ) -> Schedule:
        """Change a schedule; what is None stays. `paused`: True pauses it, False resumes it."""
        fields = {"cron": cron, "timezone": timezone, "overlap": overlap, "paused": paused}
        return self._api.ask(schedule_endpoints.change_schedule(schedule_id, run, fields))

    def delete_schedule(self, schedule_id: str) -> None:
        """Delete a schedule; its runs stay."""
        self._api.delete(schedule_endpoints.delete_schedule(schedule_id))

    def run_schedule_now(self, schedule_id: str, *, idempotency_key: str | None = None) -> TickResult:
        """Create and start a run of a schedule at once, as its overlap policy allows; also if it is paused."""
        return self._api.ask(schedule_endpoints.run_schedule_now(schedule_id, idempotency_key))
