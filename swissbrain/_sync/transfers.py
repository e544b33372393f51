# Generated from swissbrain/_async by `python -m scripts.unasync`; change it there.
"""Contents of files, which go to and come from the object store. The token is never sent to the object store."""

import io
import secrets
from collections.abc import Generator
from contextlib import closing, suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import httpx

from swissbrain import endpoints
from swissbrain._sync.transport import Transport
from swissbrain.callbacks import MAX_READ_BYTES, OnBytes, at_most, ignore
from swissbrain.concurrency import call, sleep
from swissbrain.contents import CHUNK_BYTES, Digests, open_content, read_part
from swissbrain.environment import open_client, through_proxy
from swissbrain.errors import ClientError, ProtocolError, Unreachable
from swissbrain.messages import ATTEMPTS, check_stored, decode, pause_s, raise_for_redirect, reason
from swissbrain.models import InputFile, UploadTarget
from swissbrain.request import Request

T = TypeVar("T")


def upload(api: Transport, run_id: str, path: str, content: Path | bytes, on_bytes: OnBytes = ignore) -> InputFile:
    """Announce a file and send its content, again if the connection breaks. Raises OSError too."""
    with call(partial(open_content, content)) as source:
        tries = 0
        digests = Digests()
        while call(partial(digests.add_part, source)):
            pass
        while True:
            # The same content gets the same place in the store, so that sending it twice has the effect of once.
            file = api.ask(endpoints.announce_upload(run_id, path, digests.size_bytes, digests.hex))
            if file.upload is None:
                raise ProtocolError(f"{api.base_url} does not say where to send '{path}'")
            try:
                _send(api, path, file.upload, source, digests.size_bytes, on_bytes)
            except Unreachable:
                tries += 1
                if tries == ATTEMPTS:
                    raise
                sleep(pause_s(tries))
            else:
                return file


def _send(
    api: Transport,
    path: str,
    target: UploadTarget,
    source: BinaryIO,
    size: int,
    on_bytes: OnBytes,
) -> None:
    def body() -> Generator[bytes, None, None]:
        sent = 0
        while sent < size:
            part = call(partial(read_part, source, sent, size))
            yield part
            sent += len(part)
            on_bytes(sent)

    # Headers of HTTP are the same in upper and lower case, keys of a dict are not.
    headers = httpx.Headers({**httpx.Headers(target.headers), "content-length": str(size)})
    try:
        url = httpx.URL(target.url)
        with open_client(url, timeout=api.http.timeout) as http:
            answer = http.request(target.method, url, headers=headers, content=body() if size else b"")
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
        raise ProtocolError(f"{api.base_url} does not say where to send '{path}'") from exc
    except httpx.RequestError as exc:
        raise Unreachable(f"cannot send '{path}' to {url.host}{through_proxy(url)}: {reason(exc)}") from exc
    check_stored(answer, path, HTTPStatus.OK)


def read_step(api: Transport, request: Request[T], name: str) -> T:
    """Return a completed step or call, from the API or, if it is large, from the object store."""
    response = api.send(request)
    if response.next_request is None:
        return decode(response.content, request, api.base_url)
    content = io.BytesIO()
    download(api, request, name, content, at_most(MAX_READ_BYTES, name))
    return decode(content.getvalue(), request, api.base_url)


def download(api: Transport, request: Request[Any], name: str, to: BinaryIO, on_bytes: OnBytes = ignore) -> None:
    """Write the content to which the API redirects to `to`; after a lost connection, continue where it broke."""
    place = ""
    got = tries = 0
    while True:
        store = _locate(api, request, name)
        # The place of a file in the store has one content for ever; only the signature in the query changes.
        if got and store.path != place:
            raise ClientError(f"'{name}' was replaced while it was fetched")
        place = store.path
        before = got
        try:
            with closing(_fetch(api, name, store, got)) as chunks:
                for chunk in chunks:
                    call(partial(to.write, chunk))
                    got += len(chunk)
                    on_bytes(got)
        except Unreachable:
            tries = 1 if got > before else tries + 1
            if tries == ATTEMPTS:
                raise
            sleep(pause_s(tries))
        else:
            return


def _locate(api: Transport, request: Request[Any], name: str) -> httpx.URL:
    response = api.send(request)
    if response.next_request is None:
        raise ProtocolError(f"{api.base_url} does not say where '{name}' is stored")
    if response.next_request.url.path == response.request.url.path:
        # Not the store, but the same file of the API at another address, such as https:// instead of http://.
        raise_for_redirect(response, api.base_url)
    return response.next_request.url


def _fetch(api: Transport, name: str, store: httpx.URL, start: int) -> Generator[bytes, None, None]:
    """Yield the content of a file from the byte `start` on."""
    # A new request without the client's headers: following the redirect, httpx would keep the token for a store at the
    # address of the API. Compressed content could not be continued at a byte.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    expected = HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK
    try:
        with (
            open_client(store, timeout=api.http.timeout) as http,
            http.stream("GET", store, headers=headers) as content,
        ):
            if content.is_error:
                content.read()
            check_stored(content, name, expected)
            if start and not content.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise ProtocolError(f"the object store answered with another part of '{name}' than the missing one")
            for chunk in content.iter_bytes(CHUNK_BYTES):
                yield chunk
    except httpx.RequestError as exc:
        raise Unreachable(f"cannot fetch '{name}' from {store.host}{through_proxy(store)}: {reason(exc)}") from exc


def save(api: Transport, request: Request[Any], name: str, to: Path, on_bytes: OnBytes) -> None:
    """Write the content to which the API redirects to the file `to`: replace it as a whole, or leave the old one.

    Raises OSError too.
    """
    if to.exists() and not to.is_file():
        # A device or a pipe is written to; replacing it by a regular file would remove it.
        with call(lambda: to.open("wb")) as device:
            download(api, request, name, device, on_bytes)
        return
    # The temporary file is in the same folder, because a file can be replaced atomically only within a file system.
    partial_file = to.with_name(f".swissbrain-{secrets.token_hex(8)}")
    try:
        with partial_file.open("xb") as content:
            download(api, request, name, content, on_bytes)
        partial_file.replace(to)
    except BaseException as exc:  # a signal can come while the file is opened, too
        with suppress(OSError):
            partial_file.unlink(missing_ok=True)
        if isinstance(exc, OSError) and exc.filename == str(partial_file):
            raise OSError(exc.errno, exc.strerror, str(to)) from exc
        raise
