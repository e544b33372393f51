"""People in a run: answers to the requests of a waiting run, messages, and interrupts."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import BODY_ERRORS, IDEMPOTENCY_KEY, ApiEndpoint
from edge_api.http.parsing import idempotency_key, read_json, read_nothing
from edge_api.http.principal import Principal
from edge_api.http.request_models import ResumeRun, SendMessage
from edge_api.http.response_models import RunState
from edge_api.http.responses import ok
from edge_api.people_service import PeopleService
from edge_api.settings import WRITE_RUNS


class PeopleRoutes:
    """Take part in a run."""

    def __init__(self, people: PeopleService, *, max_body_bytes: int) -> None:
        self._people = people
        self._max_body_bytes = max_body_bytes

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "POST",
                "/agent/runs/{run_id}/resume",
                self.resume,
                # The body says which scope is needed: answers to questions and approvals need different ones.
                None,
                operation_id="resumeRun",
                summary="Answer the requests of a waiting run; it continues once none is open.",
                success={200: RunState},
                errors=[*BODY_ERRORS, 403, 404, 409],
                body=ResumeRun,
                headers=[IDEMPOTENCY_KEY],
            ),
            ApiEndpoint(
                "POST",
                "/agent/runs/{run_id}/messages",
                self.message,
                WRITE_RUNS,
                operation_id="sendMessage",
                summary="Send a message to a run that has not ended and has no explicit plan.",
                success={200: RunState},
                errors=[*BODY_ERRORS, 404, 409],
                body=SendMessage,
                headers=[IDEMPOTENCY_KEY],
            ),
            ApiEndpoint(
                "POST",
                "/agent/runs/{run_id}/interrupt",
                self.interrupt,
                WRITE_RUNS,
                operation_id="interruptRun",
                summary="Stop the work on a run without an explicit plan, and let it wait for people.",
                success={200: RunState},
                errors=[400, 404, 409, 413, 422],
            ),
        ]

    async def message(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/messages`."""
        wanted = await read_json(request, SendMessage, self._max_body_bytes)
        key = idempotency_key(request)
        return ok(await self._people.message(principal.user, request.path_params["run_id"], wanted.text, key=key))

    async def interrupt(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/interrupt`."""
        await read_nothing(request, self._max_body_bytes)
        return ok(await self._people.interrupt(principal.user, request.path_params["run_id"]))

    async def resume(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/resume`."""
        wanted = await read_json(request, ResumeRun, self._max_body_bytes)
        key = idempotency_key(request)
        return ok(await self._people.resume(principal, request.path_params["run_id"], wanted, key=key))
