"""People in a run: answers to the requests of a waiting run."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import BODY_ERRORS, IDEMPOTENCY_KEY, ApiEndpoint
from edge_api.http.parsing import idempotency_key, read_json
from edge_api.http.principal import Principal
from edge_api.http.request_models import ResumeRun
from edge_api.http.response_models import RunState
from edge_api.http.responses import ok
from edge_api.people_service import PeopleService


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
        ]

    async def resume(self, request: Request, principal: Principal) -> Response:
        """`POST /agent/runs/{run_id}/resume`."""
        wanted = await read_json(request, ResumeRun, self._max_body_bytes)
        key = idempotency_key(request)
        return ok(await self._people.resume(principal, request.path_params["run_id"], wanted, key=key))
