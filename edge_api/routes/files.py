"""The files of a run's workspace: listed here, fetched from the object store."""

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from edge_api.auth.api_keys import Principal
from edge_api.http.response_models import File, FileList
from edge_api.http.responses import elsewhere, ok
from edge_api.ports import Workspaces
from edge_api.runs_service import RunService
from infra.contract.paths import workspace_path


class FileRoutes:
    """List files, and redirect to their content."""

    def __init__(self, runs: RunService, files: Workspaces, *, presign_expiry_s: int) -> None:
        self._runs = runs
        self._files = files
        self._presign_expiry_s = presign_expiry_s

    async def list(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}/files`."""
        run_id = request.path_params["run_id"]
        base = f"/agent/runs/{run_id}/files"
        found = await self._runs.files(principal.user, run_id)
        files = [
            File(
                path=path,
                size_bytes=entry.size_bytes,
                modified_ms=entry.modified_ms,
                href=f"{base}/{quote(path)}",
            )
            for path, entry in sorted(found.items())
        ]
        return ok(FileList(files=files))

    async def fetch(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}/files/{path}`: a redirect to a URL that is good for a short time."""
        # The server has undone the percent-encoding, so what hid a `..` is in the open here.
        path = workspace_path(request.path_params["path"])
        run_id = request.path_params["run_id"]
        entry = await self._runs.file(principal.user, run_id, path)
        url = await self._files.presign_get(principal.user, run_id, path, entry, self._presign_expiry_s)
        return elsewhere(url)
