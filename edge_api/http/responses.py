"""Responses of successful requests. No response may be cached: runs change, and files are private."""

from email.utils import formatdate

import msgspec
from starlette.responses import Response

from edge_api.http.principal import Principal
from edge_api.http.response_models import Run
from edge_api.settings import READ_RUNS
from infra.contract.files import FileEntry
from infra.contract.runs import RunRecord

_encode = msgspec.json.Encoder().encode
_HEADERS = {"Cache-Control": "no-store"}


def ok(value: object, status: int = 200) -> Response:
    """Return the value as JSON."""
    return Response(_encode(value), status, _HEADERS, "application/json")


def created(record: RunRecord, principal: Principal, *, is_new: bool) -> Response:
    """Return the run: with 201 if this request created it, with 200 if an earlier request with the same key did."""
    run = visible(record, principal)
    headers = {**_HEADERS, "Location": run.links.self}
    return Response(_encode(run), 201 if is_new else 200, headers, "application/json")


def visible(record: RunRecord, principal: Principal) -> Run:
    """Return the run that a request has created or found.

    A principal without the scope to read gets no result, error, requests and usage, which the run may have by now.
    """
    run = Run.of(record)
    if principal.allows(READ_RUNS):
        return run
    return msgspec.structs.replace(run, result=None, error=None, waiting=None, usage=None)


def no_content() -> Response:
    """Return 204 without a body."""
    return Response(status_code=204, headers=_HEADERS)


def file_head(entry: FileEntry, content_type: str) -> Response:
    """Return the headers of a file, for HEAD: the object store would refuse HEAD at a URL that is signed for GET."""
    headers = {
        **_HEADERS,
        "Content-Length": str(entry.size_bytes),
        "Last-Modified": formatdate(entry.modified_ms / 1000, usegmt=True),
    }
    return Response(status_code=200, headers=headers, media_type=content_type)


def stored_step_head() -> Response:
    """Return the headers of a step in the object store, for HEAD as in `file_head`. The API does not know its size."""
    response = Response(status_code=200, headers=_HEADERS, media_type="application/json")
    del response.headers["content-length"]  # the one of an empty body
    return response


def redirect(url: str) -> Response:
    """Return 307 to the URL of the content, which must not become the referrer of another request."""
    return Response(status_code=307, headers={**_HEADERS, "Location": url, "Referrer-Policy": "no-referrer"})
