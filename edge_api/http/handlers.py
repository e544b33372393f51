"""Exception handlers of the application: errors become problem documents."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from edge_api.http.errors import EdgeError, report, respond
from edge_api.http.response_models import Problem
from infra.contract.errors import ContractError


async def _on_error(request: Request, exc: Exception) -> Response:
    return respond(*report(exc, request.scope))


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    """Respond to an error of Starlette: no such path, no such method."""
    if not isinstance(exc, HTTPException):
        raise exc
    problem = Problem(
        type="about:blank",
        title=HTTPStatus(exc.status_code).phrase,
        status=exc.status_code,
        detail=_detail(request, exc),
    )
    return respond(problem, exc.headers)


def _detail(request: Request, exc: HTTPException) -> str:
    path = request.scope["path"]
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED and exc.headers:
        return f"{request.method[:20]} is not allowed here; allowed are {exc.headers['Allow']}"
    if exc.status_code == HTTPStatus.NOT_FOUND:
        hint = ", which ends in '/' or has '//'" if path.endswith("/") or "//" in path else ""
        return f"there is nothing at this path{hint}; /openapi.json lists all paths"
    return exc.detail


HANDLERS: Mapping[type[Exception], ExceptionHandler] = {
    ContractError: _on_error,
    EdgeError: _on_error,
    HTTPException: _on_http_exception,
}
