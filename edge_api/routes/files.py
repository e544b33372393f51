"""Files of a run: announced and listed by the API, uploaded to and downloaded from the object store."""

import time
from collections.abc import Sequence
from urllib.parse import quote, unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response

from edge_api.http.endpoint import BODY_ERRORS, ApiEndpoint
from edge_api.http.file_models import File, FileLink, FileList, InputFile, UploadTarget
from edge_api.http.parsing import prefers_json, read_json, read_query
from edge_api.http.principal import Principal
from edge_api.http.request_models import AnnounceInput, FileQuery
from edge_api.http.responses import file_head, ok, redirect
from edge_api.ports import WorkspaceStore
from edge_api.runs_service import RunService
from edge_api.settings import READ_RUNS, WRITE_RUNS
from infra.contract.errors import InvalidInput
from infra.contract.paths import workspace_path, writable_path


class FileRoutes:
    """Announce input files of a run, list its files, and redirect to the content of one."""

    def __init__(
        self, runs: RunService, workspaces: WorkspaceStore, *, presign_expiry_s: int, max_body_bytes: int
    ) -> None:
        self._runs = runs
        self._workspaces = workspaces
        self._presign_expiry_s = presign_expiry_s
        self._max_body_bytes = max_body_bytes

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
                "/agent/runs/{run_id}/files/{path:file}",
                self.fetch,
                READ_RUNS,
                operation_id="getFile",
                summary="Redirect to the content of a file, at a URL that expires soon, or get this URL as JSON.",
                success={307: None, 200: FileLink},
                errors=[404, 422],
                query=FileQuery,
            ),
            ApiEndpoint(
                "PUT",
                "/agent/runs/{run_id}/files/{path:file}",
                self.announce,
                WRITE_RUNS,
                operation_id="announceInput",
                summary="Announce an input file of a run that is not started, and get the URL to upload it.",
                success={200: InputFile},
                errors=[*BODY_ERRORS, 404, 409],
                body=AnnounceInput,
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
        path = workspace_path(_path(request))
        inline = read_query(request, FileQuery).disposition == "inline"
        run_id = request.path_params["run_id"]
        entry = await self._runs.file(principal.user, run_id, path)
        content_type = self._workspaces.link_type(path, inline=inline)
        if request.method == "HEAD":
            return file_head(entry, content_type)
        expires_s = self._presign_expiry_s
        expires_ms = int((time.time() + expires_s) * 1000)
        url = await self._workspaces.presign_get(principal.user, run_id, path, entry, expires_s, inline=inline)
        if not prefers_json(request):
            return redirect(url)
        return ok(FileLink(url=url, expires_ms=expires_ms, content_type=content_type, size_bytes=entry.size_bytes))

    async def announce(self, request: Request, principal: Principal) -> Response:
        """`PUT /agent/runs/{run_id}/files/{path}`: the body describes the file and does not contain it."""
        path = writable_path(_path(request))
        run_id = request.path_params["run_id"]
        wanted = await read_json(request, AnnounceInput, self._max_body_bytes)
        wanted.check()
        if wanted.from_run is not None and wanted.path is not None:
            principal.require(READ_RUNS)  # the new run has the content of another run
            source_path = workspace_path(wanted.path, field="$.path")
            await self._runs.announce_copy(principal.user, run_id, path, wanted.from_run, source_path)
            return ok(InputFile(path=path, from_run=wanted.from_run, source_path=source_path, upload=None))
        size_bytes, sha256 = wanted.size_bytes or 0, wanted.sha256 or ""
        headers = self._workspaces.upload_headers(size_bytes, sha256, wanted.md5)
        entry = await self._runs.announce_upload(principal.user, run_id, path, size_bytes, sha256)
        # Taken before the signature is made, so that the URL is valid at least until then.
        expires_ms = int((time.time() + self._presign_expiry_s) * 1000)
        url = await self._workspaces.presign_put(principal.user, run_id, entry.key, self._presign_expiry_s, headers)
        upload = UploadTarget(method="PUT", url=url, headers=headers, expires_ms=expires_ms)
        return ok(InputFile(path=path, size_bytes=size_bytes, sha256=sha256, upload=upload))


def _path(request: Request) -> str:
    """Return the path of the file in the URL. Raises InvalidInput if it is not UTF-8."""
    path = str(request.path_params["path"])
    raw_path = request.scope.get("raw_path")
    try:
        # Mangum leaves out the raw path, and like servers has put U+FFFD in place of bytes that are not UTF-8.
        readable = "\ufffd" not in path if raw_path is None else bool(unquote_to_bytes(raw_path).decode())
    except UnicodeDecodeError:
        readable = False
    if not readable:  # different files would have one name
        raise InvalidInput("the path is not UTF-8", "path")
    return path
