"""Schedules: created, listed, shown, changed, deleted, and started by hand."""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import BODY_ERRORS, IDEMPOTENCY_KEY, ApiEndpoint
from edge_api.http.parsing import idempotency_key, read_json, read_nothing
from edge_api.http.principal import Principal
from edge_api.http.responses import no_content, ok
from edge_api.http.schedule_models import (
    ChangeSchedule,
    CreateSchedule,
    Schedule,
    ScheduleList,
    ScheduleSummary,
    TickResult,
)
from edge_api.schedules_service import ScheduleService
from edge_api.settings import READ_RUNS, WRITE_RUNS
from infra.contract.schedules import ScheduleRecord

_OFF = (501,)


class ScheduleRoutes:
    """Operations on the schedules of a user."""

    def __init__(self, schedules: ScheduleService, *, max_body_bytes: int) -> None:
        self._schedules = schedules
        self._max_body_bytes = max_body_bytes

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "POST",
                "/agent/schedules",
                self.create,
                WRITE_RUNS,
                operation_id="createSchedule",
                summary="Create a schedule, which creates and starts a run at the times of a cron expression.",
                success={201: Schedule, 200: Schedule},
                errors=[*BODY_ERRORS, *_OFF, 409],
                body=CreateSchedule,
                headers=[IDEMPOTENCY_KEY],
            ),
            ApiEndpoint(
                "GET",
                "/agent/schedules",
                self.list,
                READ_RUNS,
                operation_id="listSchedules",
                summary="List your schedules, oldest first.",
                success={200: ScheduleList},
                errors=_OFF,
            ),
            *self._endpoints_of_one(),
        ]

    def _endpoints_of_one(self) -> Sequence[ApiEndpoint]:
        return [
            ApiEndpoint(
                "GET",
                "/agent/schedules/{schedule_id}",
                self.show,
                READ_RUNS,
                operation_id="getSchedule",
                summary="Get a schedule with its next times and its last tick.",
                success={200: Schedule},
                errors=[*_OFF, 404],
            ),
            ApiEndpoint(
                "PATCH",
                "/agent/schedules/{schedule_id}",
                self.change,
                WRITE_RUNS,
                operation_id="changeSchedule",
                summary="Change a schedule: its times, its run, its overlap policy; pause or resume it.",
                success={200: Schedule},
                errors=[*BODY_ERRORS, *_OFF, 404, 409],
                body=ChangeSchedule,
            ),
            ApiEndpoint(
                "DELETE",
                "/agent/schedules/{schedule_id}",
                self.delete,
                WRITE_RUNS,
                operation_id="deleteSchedule",
                summary="Delete a schedule; its runs stay.",
                success={204: None},
                errors=[*_OFF, 404, 409],
            ),
            ApiEndpoint(
                "POST",
                "/agent/schedules/{schedule_id}/run-now",
                self.run_now,
                WRITE_RUNS,
                operation_id="runScheduleNow",
                summary="Create and start a run of the schedule at once, as its overlap policy allows.",
                success={200: TickResult},
                errors=[*_OFF, 400, 404, 413, 422],
                headers=[IDEMPOTENCY_KEY],
            ),
        ]

    async def create(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/schedules`."""
        wanted = await read_json(request, CreateSchedule, self._max_body_bytes)
        key = idempotency_key(request)
        record, is_new = await self._schedules.create(principal.user, wanted.spec, key=key)
        response = ok(_visible(record, principal, knows_run=True), 201 if is_new else 200)
        response.headers["Location"] = f"/agent/schedules/{record.id}"
        return response

    async def list(self, _request: Request, principal: Principal) -> Response:
        """`GET /agent/schedules`."""
        heads, unreadable = await self._schedules.all(principal.user)
        schedules = [ScheduleSummary.of(head) for head in heads]
        return ok(ScheduleList(schedules=schedules, unreadable=unreadable or UNSET))

    async def show(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/schedules/{schedule_id}`."""
        return ok(Schedule.of_record(await self._schedules.get(principal.user, _id(request))))

    async def change(self, request: Request, principal: Principal) -> Response:
        """`PATCH /agent/schedules/{schedule_id}`."""
        wanted = await read_json(request, ChangeSchedule, self._max_body_bytes)
        record = await self._schedules.change(principal.user, _id(request), wanted)
        return ok(_visible(record, principal, knows_run=wanted.run is not UNSET))

    async def delete(self, request: Request, principal: Principal) -> Response:
        """`DELETE /agent/schedules/{schedule_id}`."""
        await self._schedules.delete(principal.user, _id(request))
        return no_content()

    async def run_now(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/schedules/{schedule_id}/run-now`."""
        await read_nothing(request, self._max_body_bytes)
        key = idempotency_key(request)
        return ok(await self._schedules.run_now(principal.user, _id(request), key=key))


def _id(request: Request) -> str:
    return str(request.path_params["schedule_id"])


def _visible(record: ScheduleRecord, principal: Principal, *, knows_run: bool) -> Schedule:
    """Return the schedule that a request has created or changed.

    A principal without the scope to read gets neither the last tick nor, unless the request gave it, the run.
    """
    schedule = Schedule.of_record(record)
    if principal.allows(READ_RUNS):
        return schedule
    hidden = {} if knows_run else {"run": None, "title": ""}
    return msgspec.structs.replace(schedule, last=None, **hidden)
