"""Application of the API server: access, faults, admission, then the request itself."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.kube import discovery
from tests.support.kube.access import Access
from tests.support.kube.errors import KubeError, Obj, bad_request, expired
from tests.support.kube.faults import Cut, Delay, Deny, Fail, Faults
from tests.support.kube.reading import Reader
from tests.support.kube.requests import KubeRequest, parse
from tests.support.kube.store import Store
from tests.support.kube.watching import FOREVER_S, Watches, WatchRequest
from tests.support.kube.writing import Writer

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
MAX_BODY_BYTES = 3 * 1024 * 1024
_VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Receive: TypeAlias = Callable[[], Awaitable[Message]]


class ConnectionCut(Exception):
    """Request that ends with a closed connection instead of an answer."""


class CutAnswer(Response):
    """Closed connection instead of an answer."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Close the connection (ASGI)."""
        scope["abort"]()


class Api:
    """API of a server. `requests` lists verb, resource and status of all requests so far; a cut one has status 0."""

    def __init__(
        self, store: Store, faults: Faults, access: Access, watches: Watches, reader: Reader, writer: Writer
    ) -> None:
        self.requests: list[tuple[str, str, int]] = []
        self._store = store
        self._faults = faults
        self._access = access
        self._watches = watches
        self._reader = reader
        self._writer = writer
        self._app = Starlette(routes=[Route("/{path:path}", self._answer, methods=METHODS)])

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        # uvicorn answers each error of an application with 500, so the connection itself is closed.
        scope["abort"] = send.__self__.transport.abort  # type: ignore[attr-defined]
        await (CutAnswer() if self._faults.down else self._app)(scope, receive, send)

    async def _answer(self, http: HttpRequest) -> Response:
        if http.url.path in {"/version", "/healthz", "/readyz", "/livez"}:
            return JSONResponse(_VERSION)
        if (found := discovery.document(http.url.path)) is not None:
            return JSONResponse(found)
        request, status = None, 0
        try:
            if http.url.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
                return JSONResponse(self._review(await _body(http), _token(http)), 201)
            request = parse(http)
            response = await self._carry_out(request, http)
        except ConnectionCut:
            return CutAnswer()
        except KubeError as error:
            status = error.code
            headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
            return JSONResponse(error.status(), error.code, headers)
        else:
            status = response.status_code
            return response
        finally:
            if request:
                self.requests.append((request.verb, request.permission, status))

    async def _carry_out(self, request: KubeRequest, http: HttpRequest) -> Response:
        resource = request.resource
        named = (request.permission, resource.group)
        self._access.check(_token(http), request.verb, named, request.namespace, request.name)
        body = await _body(http) if http.method != "GET" else None
        cut_after = False
        for effect in self._faults.for_request(request.verb, request.permission):
            if isinstance(effect, Delay):
                await asyncio.sleep(effect.seconds)
            elif isinstance(effect, Fail):
                raise effect.error()
            elif isinstance(effect, Deny):
                raise _denied(request, effect, body)
            elif effect.when == "before":
                raise ConnectionCut
            cut_after |= isinstance(effect, Cut)
        response = self._response(request, body, http.headers.get("content-type", ""))
        for warning in self._writer.warnings(request, body):
            response.headers.append("Warning", f'299 - "{warning.replace(chr(34), chr(39))}"')
        if cut_after:
            raise ConnectionCut
        return response

    def _response(self, request: KubeRequest, body: Any, content_type: str) -> Response:
        match request.verb:
            case "watch":
                return self._watch(request)
            case "get" if request.sub == "log":
                return Response(self._reader.log(request), media_type="text/plain")
            case "get":
                return JSONResponse(self._reader.one(request))
            case "list":
                return JSONResponse(self._reader.many(request))
            case "create":
                return JSONResponse(self._writer.create(request, body), 201)
            case "update":
                return JSONResponse(self._writer.replace(request, body))
            case "patch":
                return JSONResponse(self._writer.patch(request, body, content_type))
            case "delete":
                return JSONResponse(self._writer.delete(request, body))
            case _:
                return JSONResponse(self._writer.delete_many(request, body))

    def _watch(self, request: KubeRequest) -> Response:
        timeout_s = request.number("timeoutSeconds") or FOREVER_S
        version = request.number("resourceVersion")
        if version and version < self._store.oldest and self._faults.gone_as_status:
            raise expired(version, self._store.oldest)
        wanted = WatchRequest(
            request.resource.plural,
            request.namespace,
            request.selector(),
            version,
            timeout_s,
            request.flag("allowWatchBookmarks"),
        )
        return StreamingResponse(self._watches.stream(wanted), media_type="application/json")

    def _review(self, body: Any, token: str) -> Obj:
        asked = ((body or {}).get("spec") or {}).get("resourceAttributes") or {}
        sub = f"/{asked['subresource']}" if asked.get("subresource") else ""
        resource = asked.get("resource", "*") + sub
        allowed = self._access.allows(token, asked.get("verb", "*"), resource, asked.get("namespace", ""))
        kind = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}}
        return {**kind, "spec": {"resourceAttributes": asked}, "status": {"allowed": allowed}}


def _denied(request: KubeRequest, effect: Deny, body: Any) -> KubeError:
    resource = request.resource
    name = request.name or ((body or {}).get("metadata") or {}).get("name", "")
    text = (
        f"{resource.plural}.{resource.group} \"{name}\" is forbidden: ValidatingAdmissionPolicy '{effect.policy}' with "
        f"binding '{effect.policy}' denied request: {effect.message}"
    )
    details = {"name": name, "group": resource.group, "kind": resource.plural, "causes": [{"message": effect.message}]}
    return KubeError(422, "Invalid", text, details)


def _token(http: HttpRequest) -> str:
    scheme, _, token = http.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _body(http: HttpRequest) -> Any:
    data = await http.body()
    if len(data) > MAX_BODY_BYTES:
        text = f"Request entity too large: limit is {MAX_BODY_BYTES}"
        raise KubeError(413, "RequestEntityTooLarge", text)
    if not data:
        return None
    try:
        return json.loads(data)
    except ValueError as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None
