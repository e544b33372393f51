"""Content of workspace files. The API redirects to the object store; the token is never sent to the object store."""

import secrets
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import httpx

from swissbrain import endpoints
from swissbrain.environment import open_client
from swissbrain.errors import ApiError, ProtocolError, Unreachable
from swissbrain.transport import Transport, raise_for_redirect


def download(api: Transport, run_id: str, path: str, to: BinaryIO) -> None:
    """Write the content of a file to `to`."""
    response = api.send(endpoints.get_file(run_id, path))
    if response.next_request is None:
        raise ProtocolError(f"{api.base_url} does not say where '{path}' is stored")
    if response.next_request.url.path == response.request.url.path:
        # Not the store, but the same file of the API at another address, such as https:// instead of http://.
        raise_for_redirect(response, api.base_url)
    # A new request without the client's headers: following the redirect, httpx would keep the token for a store at the
    # address of the API.
    store = response.next_request.url
    try:
        with open_client(store, timeout=api.http.timeout) as http, http.stream("GET", store) as content:
            if content.is_error:
                raise ApiError(content.status_code, f"the object store refused '{path}'")
            # 204 and 206 are no errors, but their body is not the whole file.
            if content.status_code != HTTPStatus.OK:
                raise ProtocolError(f"the object store answered with HTTP status {content.status_code} for '{path}'")
            for chunk in content.iter_bytes():
                to.write(chunk)
    except httpx.RequestError as exc:
        reason = str(exc) or type(exc).__name__
        raise Unreachable(f"cannot fetch '{path}' from {store.host}: {reason}") from exc


def save(api: Transport, run_id: str, path: str, to: Path) -> None:
    """Write the content of a file to the file `to`: replace it as a whole, or leave the old one. Raises OSError too."""
    if to.exists() and not to.is_file():
        # A device or a pipe is written to; replacing it by a regular file would remove it.
        with to.open("wb") as device:
            download(api, run_id, path, device)
        return
    # The temporary file is in the same folder, because a file can be replaced atomically only within a file system.
    partial = to.with_name(f".swissbrain-{secrets.token_hex(8)}")
    try:
        content = partial.open("xb")
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, str(to)) from exc
    try:
        with content:
            download(api, run_id, path, content)
        partial.replace(to)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
