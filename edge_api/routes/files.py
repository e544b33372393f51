"""Files of a run's workspace: listed by the API, downloaded from the object store."""

import time
from collections.abc import Sequence
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import ApiEndpoint
from edge_api.http.parsing import prefers_json, read_query
from edge_api.http.principal import Principal
from edge_api.http.request_models import FileQuery
from edge_api.http.response_models import File, FileLink, FileList
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
                summary="Redirect to the content of a file, at a URL that expires soon, or get this URL as JSON.",
                success={307: None, 200: FileLink},
                errors=[404, 422],
                query=FileQuery,
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
        """`GET /agent/runs/{run_id}/files/{path}`: redirect to a presigned URL, or return it. HEAD is answered here."""
        # Checked after the server has undone the percent-encoding, so an encoded `..` is seen as well.
        path = workspace_path(request.path_params["path"])
        inline = read_query(request, FileQuery).disposition == "inline"
        run_id = request.path_params["run_id"]
        entry = await self._runs.file(principal.user, run_id, path)
        if request.method == "HEAD":
            return file_head(entry)
        content_type = self._workspaces.link_type(path, inline=inline)
        expires_s = self._presign_expiry_s
        expires_ms = int((time.time() + expires_s) * 1000)
        url = await self._workspaces.presign_get(principal.user, run_id, path, entry, expires_s, inline=inline)
        if not prefers_json(request):
            return redirect(url)
        return ok(FileLink(url=url, expires_ms=expires_ms, content_type=content_type, size_bytes=entry.size_bytes))
