"""Steps of a run with their results."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import ApiEndpoint
from edge_api.http.principal import Principal
from edge_api.http.response_models import StepList
from edge_api.http.responses import ok, redirect, stored_step_head
from edge_api.ports import WorkspaceStore
from edge_api.runs_service import RunService
from edge_api.settings import READ_RUNS
from edge_api.steps import RunSteps
from infra.contract.files import FileEntry
from infra.contract.journal import BlobRef, CallOutcome, StepRecord


class StepRoutes:
    """List the steps of a run, and return one that is completed."""

    def __init__(self, runs: RunService, steps: RunSteps, workspaces: WorkspaceStore, *, presign_expiry_s: int) -> None:
        self._runs = runs
        self._steps = steps
        self._workspaces = workspaces
        self._presign_expiry_s = presign_expiry_s

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "GET",
                "/agent/runs/{run_id}/steps",
                self.list,
                READ_RUNS,
                operation_id="listSteps",
                summary="List the steps of a run's plan, or the calls of its agent, with their statuses and results.",
                success={200: StepList},
                errors=[404],
            ),
            ApiEndpoint(
                "GET",
                "/agent/runs/{run_id}/steps/{index:index}",
                self.fetch,
                READ_RUNS,
                operation_id="getStep",
                summary="Return a completed step or call as it is stored, or redirect to it if its result is large.",
                success={200: (StepRecord, CallOutcome), 307: None},
                errors=[404],
            ),
        ]

    async def list(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}/steps`."""
        run = await self._runs.get(principal.user, request.path_params["run_id"])
        return ok(StepList(run_id=run.id, steps=await self._steps.list(run)))

    async def fetch(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}/steps/{index}`: the stored step, from Redis or the object store.

        HEAD is answered here in both cases.
        """
        run = await self._runs.get(principal.user, request.path_params["run_id"])
        index = request.path_params["index"]
        stored = await self._steps.stored(run, index)
        if not isinstance(stored, BlobRef):
            return ok(stored)
        if request.method == "HEAD":
            return stored_step_head()
        # A blob is an object of the run like a file; it has no entry in the record.
        blob = FileEntry(key=stored.name, size_bytes=0, modified_ms=0)
        name = f"step-{index}.json"
        return redirect(await self._workspaces.presign_get(run.user, run.id, name, blob, self._presign_expiry_s))
