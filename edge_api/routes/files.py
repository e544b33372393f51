"""The files of a run's workspace: listed here, fetched from the object store."""

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from edge_api.auth import Principal
from edge_api.ports import Workspaces
from edge_api.responses import elsewhere, ok
from edge_api.runs_service import RunService
from edge_api.schemas import File, FileList
from infra.contract.paths import workspace_path


class FileRoutes:
    """List files, and redirect to their content."""

    def __init__(self, runs: RunService, files: Workspaces, *, presign_expiry_s: int) -> None:
        self._runs = runs
        self._files = files
        self._presign_expiry_s = presign_expiry_s

    async def list(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}/files`."""
        run = await self._runs.head(principal.user, request.path_params["run_id"])
        base = f"/agent/runs/{run.id}/files"
        found = await self._files.run(principal.user, run.id).list()
        files = [
            File(
                path=file.path,
                size_bytes=file.size_bytes,
                modified_ms=file.modified_ms,
                href=f"{base}/{quote(file.path)}",
            )
            for file in found
        ]
        return ok(FileList(files=files))

    async def fetch(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}/files/{path}`: a redirect to a URL that is good for a short time."""
        # The server has undone the percent-encoding, so what hid a `..` is in the open here.
        path = workspace_path(request.path_params["path"])
        run = await self._runs.head(principal.user, request.path_params["run_id"])
        await self._files.head(principal.user, run.id, path)
        return elsewhere(await self._files.presign_get(principal.user, run.id, path, self._presign_expiry_s))
