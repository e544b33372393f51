"""Responses of successful requests. No response may be cached: runs change, and files are private."""

import msgspec
from starlette.responses import Response

from edge_api.http.response_models import Run
from infra.contract.runs import RunRecord

_encode = msgspec.json.Encoder().encode
_HEADERS = {"Cache-Control": "no-store"}


def ok(value: object, status: int = 200) -> Response:
    """Return the value as JSON."""
    return Response(_encode(value), status, _HEADERS, "application/json")


def created(record: RunRecord, *, is_new: bool) -> Response:
    """Return the run: with 201 if this request created it, with 200 if an earlier request with the same key did."""
    run = Run.of(record)
    headers = {**_HEADERS, "Location": run.links.self}
    return Response(_encode(run), 201 if is_new else 200, headers, "application/json")


def no_content() -> Response:
    """Return 204 without a body."""
    return Response(status_code=204, headers=_HEADERS)


def redirect(url: str) -> Response:
    """Return 307 to the URL of the content, which must not become the referrer of another request."""
    return Response(status_code=307, headers={**_HEADERS, "Location": url, "Referrer-Policy": "no-referrer"})
