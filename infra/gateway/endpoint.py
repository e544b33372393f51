"""The one ASGI endpoint of the gateway: authenticates, reads, dispatches, responds."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from infra.asgi import read_body
from infra.gateway import commands as parse
from infra.gateway import encoding
from infra.gateway.errors import (
    GatewayError,
    MalformedRequest,
    MethodNotAllowed,
    RedisUnavailable,
    RequestTooLarge,
    Unauthorized,
)
from infra.gateway.execute import CommandExecutor
from infra.gateway.policy import no_permission
from infra.gateway.resp import ErrorReply
from infra.gateway.settings import GatewaySettings
from infra.gateway.stream_buffer import CloseReason
from infra.gateway.streams import StreamEndpoints
from infra.logging import log

_METHODS = frozenset({"GET", "POST", "PUT", "HEAD"})
_METHODS_WITH_BODY = frozenset({"POST", "PUT"})
_DRAIN_FACTOR = 2  # an oversized body is read up to this multiple of the limit, so that the client sees the error
HEALTH_PATH = b"/_health"  # no Redis command begins with an underscore
_STREAMS = frozenset({b"subscribe", b"psubscribe", b"monitor"})
_BATCHES = frozenset({b"pipeline", b"multi-exec"})


@dataclass(frozen=True)
class _HttpResponse:
    body: bytes
    status: int = 200
    media_type: bytes = b"application/json"


class GatewayEndpoint:
    """Serves every path: a path is a command, a batch, a stream or the health check."""

    def __init__(self, settings: GatewaySettings, executor: CommandExecutor, streams: StreamEndpoints) -> None:
        self._max_bytes = settings.max_request_bytes
        self._token = settings.token.encode()
        # Without a read-only token this is empty, which no request can present. It is compared all the same, so that
        # the time of the comparison does not reveal whether a read-only token is set.
        self._readonly_token = (settings.readonly_token or "").encode()
        self._executor = executor
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            response = await self._respond(scope, receive, send)
        except ClientDisconnect:
            return  # the request was incomplete, so nothing has run and there is no client to respond to
        except GatewayError as exc:
            response = _HttpResponse(encoding.error_body(exc.text), exc.status)
        if response is not None:
            await _send(response, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> _HttpResponse | None:
        """Return the response; None if it was an event stream, which has been sent."""
        method: str = scope["method"]
        if method not in _METHODS:
            raise MethodNotAllowed("ERR only HEAD, GET, POST and PUT are allowed")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if scope["raw_path"] == HEALTH_PATH:
            return await self._health()
        query, query_token = parse.split_query(scope["query_string"])
        readonly = self._authenticate(headers.get(b"authorization"), query_token)
        segments = parse.split_path(scope["raw_path"])
        if segments and segments[0].lower() in _STREAMS and method != "HEAD":
            await self._stream(segments, readonly, receive, send)
            return None
        body = await self._body(scope, receive)
        if segments and segments[0] in _BATCHES:
            if method not in _METHODS_WITH_BODY:
                raise MethodNotAllowed("ERR a batch of commands must be sent with POST")
            return await self._batch(segments[0], body, headers, readonly)
        if segments:
            command = parse.from_path(segments, body if method in _METHODS_WITH_BODY else b"", query)
        elif method in _METHODS_WITH_BODY:
            command = parse.from_json(body)
        else:
            raise MalformedRequest("ERR the path names no command")
        return await self._single(command, headers, readonly)

    async def _health(self) -> _HttpResponse:
        """Respond 200 if Redis executes PING. Needs no token, so the response holds nothing else."""
        reply = await self._executor.single([b"PING"], readonly=False)
        if isinstance(reply, ErrorReply):
            raise RedisUnavailable("ERR Redis does not serve commands")
        return _HttpResponse(encoding.body({"result": "OK"}))

    def _authenticate(self, authorization: bytes | None, query_token: bytes | None) -> bool:
        """Return True for the read-only token, False for the standard one. Raises `Unauthorized`."""
        token = query_token or b""
        if authorization is not None:
            scheme, _, credentials = authorization.partition(b" ")
            token = credentials.strip() if scheme.lower() == b"bearer" else b""
        standard = hmac.compare_digest(token, self._token)
        readonly = hmac.compare_digest(token, self._readonly_token)
        if not token or not (standard or readonly):
            raise Unauthorized("WRONGPASS invalid or missing auth token")
        return not standard

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the request's body. Raises `RequestTooLarge`, or ClientDisconnect if it is incomplete."""
        drain_bytes = _DRAIN_FACTOR * self._max_bytes
        body = await read_body(scope, receive, limit_bytes=self._max_bytes, drain_bytes=drain_bytes)
        if body is None:
            raise RequestTooLarge(f"ERR max request size exceeded: the limit is {self._max_bytes} bytes")
        return body

    async def _single(self, command: parse.Command, headers: dict[bytes, bytes], readonly: bool) -> _HttpResponse:
        encoding_header = headers.get(b"upstash-encoding")
        if encoding.wants_resp2(headers.get(b"upstash-response-format"), encoding_header):
            return await self._single_resp2(command, readonly)
        encode = encoding.encoder_for(encoding_header)
        reply = await self._executor.single(command, readonly)
        status = 400 if isinstance(reply, ErrorReply) else 200
        return _HttpResponse(encoding.body(encoding.envelope(reply, encode)), status)

    async def _single_resp2(self, command: parse.Command, readonly: bool) -> _HttpResponse:
        try:
            raw = await self._executor.single_raw(command, readonly)
        except GatewayError as exc:
            # The client asked for RESP2, so it gets the gateway's errors in that format, too.
            raw, status = encoding.resp2_error(exc.text), exc.status
        else:
            status = 400 if raw.startswith(b"-") else 200
        return _HttpResponse(raw, status, b"application/octet-stream")

    async def _batch(self, kind: bytes, body: bytes, headers: dict[bytes, bytes], readonly: bool) -> _HttpResponse:
        encoding_header = headers.get(b"upstash-encoding")
        batch = parse.batch_from_json(body)
        if kind == b"multi-exec":
            encode = encoding.encoder_for(encoding_header)
            replies = await self._executor.transaction(batch, readonly)
            return _HttpResponse(encoding.body([encoding.envelope(reply, encode) for reply in replies]))
        if encoding.wants_resp2(headers.get(b"upstash-response-format"), encoding_header):
            raw = await self._executor.pipeline_raw(batch, readonly)
            return _HttpResponse(raw, media_type=b"application/octet-stream")
        encode = encoding.encoder_for(encoding_header)
        try:
            replies = await self._executor.pipeline(batch, readonly)
        except RedisUnavailable as exc:
            # A list with one error for each command, because the SDK raises an error that it finds in a list, but fails
            # with an AttributeError on a single object.
            return _HttpResponse(encoding.body([{"error": exc.text}] * len(batch)), exc.status)
        return _HttpResponse(encoding.body([encoding.envelope(reply, encode) for reply in replies]))

    async def _stream(self, segments: Sequence[bytes], readonly: bool, receive: Receive, send: Send) -> None:
        kind, *names = parse.from_path(segments, b"", ())
        kind = kind.lower()
        if readonly:
            raise no_permission(kind)
        if kind == b"monitor":
            reason = await self._streams.monitor(receive, send)
        elif not names or not all(names):
            raise MalformedRequest(f"ERR wrong number of arguments for '{kind.decode()}' command")
        else:
            reason = await self._streams.subscribe(names, kind == b"psubscribe", receive, send)
        if reason is CloseReason.OVERFLOW:
            log("gateway.slow_client_cut_off", level=logging.WARNING)


async def _send(response: _HttpResponse, send: Send) -> None:
    headers = [
        (b"content-type", response.media_type),
        (b"content-length", str(len(response.body)).encode()),
        (b"upstash-sync-token", encoding.sync_token()),
    ]
    if response.status == MethodNotAllowed.status:
        headers.append((b"allow", b"HEAD, GET, POST, PUT"))
    if response.status == RequestTooLarge.status:
        # The rest of the body may be unread, so the connection cannot carry another request.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
