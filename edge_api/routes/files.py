"""Files of a run's workspace: listed by the API, downloaded from the object store."""

from collections.abc import Sequence
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import ApiEndpoint
from edge_api.http.principal import Principal
from edge_api.http.response_models import File, FileList
from edge_api.http.responses import file_head, ok, redirect
from edge_api.ports import WorkspaceStore
from edge_api.runs_service import RunService
from edge_api.settings import READ_RUNS
from infra.contract.paths import workspace_path


class FileRoutes:
    """List the files of a run, and redirect to the content of one."""

    def __init__(self, runs: RunService, workspaces: WorkspaceStore, *, presign_expiry_s: int) -> None:
        self._runs = runs
        self._workspaces = workspaces
        self._presign_expiry_s = presign_expiry_s

    def endpoints(self) -> Sequence[ApiEndpoint]:
        """Return the endpoint rows."""
        return [
            ApiEndpoint(
                "GET",
                "/agent/runs/{run_id}/files",
                self.list,
                READ_RUNS,
                operation_id="listFiles",
                summary="List the files of a run's workspace.",
                success={200: FileList},
                errors=[404],
            ),
            ApiEndpoint(
                "GET",
                "/agent/runs/{run_id}/files/{path:path}",
                self.fetch,
                READ_RUNS,
                operation_id="getFile",
                summary="Redirect to the content of a file, at a URL that expires soon.",
                success={307: None},
                errors=[404, 422],
            ),
        ]

    async def list(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}/files`."""
        run_id = request.path_params["run_id"]
        base = f"/agent/runs/{run_id}/files"
        entries = await self._runs.files(principal.user, run_id)
        files = [
            File(
                path=path,
                size_bytes=entry.size_bytes,
                modified_ms=entry.modified_ms,
                href=f"{base}/{quote(path)}",
            )
            for path, entry in sorted(entries.items())
        ]
        return ok(FileList(files=files))

    async def fetch(self, request: Request, principal: Principal) -> Response:
        """`GET /agent/runs/{run_id}/files/{path}`: redirect to a presigned URL. HEAD is answered here."""
        # Checked after the server has undone the percent-encoding, so an encoded `..` is seen as well.
        path = workspace_path(request.path_params["path"])
        run_id = request.path_params["run_id"]
        entry = await self._runs.file(principal.user, run_id, path)
        if request.method == "HEAD":
            return file_head(entry)
        url = await self._workspaces.presign_get(principal.user, run_id, path, entry, self._presign_expiry_s)
        return redirect(url)
