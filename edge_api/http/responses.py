"""Answers that are not errors."""

import msgspec
from starlette.responses import Response

from edge_api.http.response_models import Run
from infra.contract.runs import RunRecord

_encode = msgspec.json.Encoder().encode
_HEADERS = {"Cache-Control": "no-store"}


def ok(value: object, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(_encode(value), status, _HEADERS, "application/json")


def created(record: RunRecord, *, now: bool) -> Response:
    """A run that this request created, or found as it was created by an equal one."""
    run = Run.of(record)
    return Response(_encode(run), 201 if now else 200, {**_HEADERS, "Location": run.links.self}, "application/json")


def nothing() -> Response:
    """Done, or nothing to say."""
    return Response(status_code=204, headers=_HEADERS)


def elsewhere(url: str) -> Response:
    """The content is at `url`, for this request only."""
    return Response(status_code=307, headers={**_HEADERS, "Location": url, "Referrer-Policy": "no-referrer"})
