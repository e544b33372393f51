"""Events that reach a Lambda function: HTTP requests from several services, and warm-ups.

Mangum tells the types apart and converts them to ASGI. What it does not know about them is put right here, before.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from mangum import Mangum
from mangum.types import LambdaHandler, Scope

from edge_api.http.base_path import STAGE
from edge_api.http.errors import BadRequest

WARM = {"warm": True}
"""Response to an event that is not an HTTP request, such as a scheduled warm-up."""
UNREADABLE = BadRequest("the function cannot read the request: its path or its headers are malformed")

DEFAULT_STAGE = "$default"
_OF_REQUESTS = frozenset({"requestContext", "httpMethod", "rawPath", "raw_path"})
_STAGE = re.compile(r"/[A-Za-z0-9_-]+")
_HOST = re.compile(r"[^\s:,\[\]]+(?::[0-9]{1,5})?")
_PORT = re.compile(r"[0-9]{1,5}")
_CHECKED = {"host": _HOST, "x-forwarded-port": _PORT}


def is_request(event: object) -> bool:
    """Return whether an event is an HTTP request, from a service that the function knows or from another one."""
    return isinstance(event, dict) and not _OF_REQUESTS.isdisjoint(event)


def converted(adapter: Mangum, event: Mapping[str, Any], context: Any) -> tuple[LambdaHandler, Scope, bytes]:
    """Return the handler of a request's event, the ASGI scope and the body.

    Raises an error of any type for an event that cannot be read: junk in a request must not become an error of the
    function, which is a 502 for clients and an alarm for operators.
    """
    handler = adapter.infer(normalized(event), context)
    scope, body = handler.scope, handler.body
    if not isinstance(scope["method"], str):
        raise TypeError("the method is not a text")
    if stage := _stage(event):
        scope[STAGE] = stage
    return handler, scope, body


def normalized(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event of a request as Mangum reads it correctly.

    Its path is encoded and without the stage, and the headers from which Mangum reads the name and the port of the
    server hold no junk. Raises KeyError, TypeError or AttributeError for an event of another form.
    """
    context = event["requestContext"]
    changed = {**event, "headers": _headers(event.get("headers") or {})}
    if event.get("multiValueHeaders"):
        changed["multiValueHeaders"] = _headers(event["multiValueHeaders"])
    # REST APIs and load balancers have no version. They hand over the path as it came, without a stage.
    if event.get("version") == "2.0":
        path = event["rawPath"] if _is_function_url(context) else _http_api_path(event["rawPath"], context)
        changed["requestContext"] = {**context, "http": {**context["http"], "path": path}}
    elif event.get("version") == "1.0":
        changed["path"] = _http_api_path(event["path"], context)
    return changed


def _is_function_url(context: Mapping[str, Any]) -> bool:
    return ".lambda-url." in context.get("domainName", "")


def _http_api_path(path: str, context: Mapping[str, Any]) -> str:
    """Return the path of an HTTP API encoded and without its stage."""
    path = path.removeprefix(_stage_before(path, context)) or "/"
    # An HTTP API has decoded the path, and Mangum decodes it again: the file `a%20b` would become `a b`.
    return quote(path, errors="surrogatepass")


def _stage_before(path: str, context: Mapping[str, Any]) -> str:
    """Return the stage with which the path of an HTTP API begins, with its slash; empty if it does not."""
    stage = context.get("stage", DEFAULT_STAGE)
    return f"/{stage}" if stage != DEFAULT_STAGE and f"{path}/".startswith(f"/{stage}/") else ""


def _stage(event: Mapping[str, Any]) -> str:
    """Return what the URL of a request had before the path that the application gets, with its slash; often empty."""
    context = event["requestContext"]
    if event.get("version") == "2.0":
        return "" if _is_function_url(context) else _stage_before(event["rawPath"], context)
    if event.get("version") == "1.0":
        return _stage_before(event["path"], context)
    # A REST API has the whole path as well, a load balancer has not.
    stage = str(context.get("path", "")).removesuffix(event["path"] or "/")
    return stage if _STAGE.fullmatch(stage) else ""


def _headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers without those on which Mangum would fail; the application uses neither of them."""
    # Anybody can send them: scanners write `[::1]` or `${ip}` into `Host`.
    return {name: value for name, value in headers.items() if _is_usable(name.lower(), value)}


def _is_usable(name: str, value: Any) -> bool:
    if name not in _CHECKED:
        return True
    values = value if isinstance(value, list) else [value]
    return len(values) == 1 and isinstance(values[0], str) and bool(_CHECKED[name].fullmatch(values[0]))
