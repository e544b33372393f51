"""Endpoints of the API for schedules, as in `swissbrain.endpoints`."""

from collections.abc import Mapping
from types import NoneType
from typing import Any

import msgspec

from swissbrain.endpoints import key_or_new, quoted, steps_of, without_none
from swissbrain.errors import ClientError
from swissbrain.plan import NewRun
from swissbrain.request import Request
from swissbrain.schedules import Schedule, ScheduleList, TickResult

_NOT_SCHEDULED = ("start", "idempotency_key", "start_at_ms", "continue_of")


def create_schedule(
    cron: str,
    run: NewRun | Mapping[str, Any],
    *,
    timezone: str | None,
    overlap: str | None,
    paused: bool | None,
    idempotency_key: str | None,
) -> Request[Schedule]:
    """Return the request that creates a schedule; None means the default of the API."""
    given = {"cron": cron, "timezone": timezone, "overlap": overlap, "paused": paused, "run": _run(run)}
    key = key_or_new(idempotency_key)
    return Request(Schedule, "POST", "/agent/schedules", json=without_none(given), key=key)


def list_schedules() -> Request[ScheduleList]:
    """Return the request for all schedules."""
    return Request(ScheduleList, "GET", "/agent/schedules")


def get_schedule(schedule_id: str) -> Request[Schedule]:
    """Return the request for a schedule."""
    return Request(Schedule, "GET", _path(schedule_id))


def change_schedule(
    schedule_id: str, run: NewRun | Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> Request[Schedule]:
    """Return the request that changes a schedule; what is None stays."""
    body = without_none({**fields, "run": None if run is None else _run(run)})
    return Request(Schedule, "PATCH", _path(schedule_id), json=body)


def delete_schedule(schedule_id: str) -> Request[None]:
    """Return the request that deletes a schedule."""
    return Request(NoneType, "DELETE", _path(schedule_id))


def run_schedule_now(schedule_id: str, idempotency_key: str | None) -> Request[TickResult]:
    """Return the request that creates a run of a schedule at once."""
    return Request(TickResult, "POST", f"{_path(schedule_id)}/run-now", key=key_or_new(idempotency_key))


def _run(run: NewRun | Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a run. Raises ClientError for one that a run of a schedule cannot have."""
    fields = without_none(msgspec.structs.asdict(run) if isinstance(run, NewRun) else dict(run))
    if isinstance(run, NewRun) and run.start:
        del fields["start"]
    if wrong := next((name for name in _NOT_SCHEDULED if name in fields), None):
        raise ClientError(f"a run of a schedule cannot have '{wrong}'")
    return without_none({**fields, "plan": steps_of(fields.get("plan"))})


def _path(schedule_id: str) -> str:
    return f"/agent/schedules/{quoted(schedule_id)}"
