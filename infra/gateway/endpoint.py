"""The one ASGI endpoint of the gateway: authenticates, reads, dispatches, responds."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Sequence
from dataclasses import replace

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from infra.asgi import read_body
from infra.gateway import commands as parse
from infra.gateway import encoding
from infra.gateway.errors import (
    BatchTooLong,
    CodedRequest,
    GatewayError,
    MalformedRequest,
    MethodNotAllowed,
    RedisUnavailable,
    RequestTooLarge,
    ResponseTooLarge,
    Unauthorized,
)
from infra.gateway.execute import Caller, CommandExecutor
from infra.gateway.memory import MemoryShare, ReplyMemory
from infra.gateway.pacing import Pacer
from infra.gateway.policy import no_permission
from infra.gateway.request_memory import FREE_BYTES, RequestMemory
from infra.gateway.resp import ErrorReply
from infra.gateway.responses import HttpResponse
from infra.gateway.results import batch_pieces, result_pieces
from infra.gateway.settings import GatewaySettings
from infra.gateway.stream_buffer import CloseReason
from infra.gateway.streams import StreamEndpoints
from infra.logging import log

_METHODS = frozenset({"GET", "POST", "PUT", "HEAD"})
_METHODS_WITH_BODY = frozenset({"POST", "PUT"})
_HELD_RESPONSES = 4  # whole replies to all requests together may take the memory of so many of the largest ones
_HELD_REQUESTS = 16  # bodies of all requests together may take the memory of so many of the largest ones
_LARGE_BODY_BYTES = 1024 * 1024
_DRAIN_FACTOR = 2  # an oversized body is read up to this multiple of the limit, so that the client sees the error
HEALTH_PATH = b"/_health"  # no Redis command begins with an underscore
_STREAMS = frozenset({b"subscribe", b"psubscribe", b"monitor"})
_BATCHES = frozenset({b"pipeline", b"multi-exec"})


class GatewayEndpoint:
    """Serves every path: a path is a command, a batch, a stream or the health check."""

    def __init__(self, settings: GatewaySettings, executor: CommandExecutor, streams: StreamEndpoints) -> None:
        self._max_bytes = settings.max_request_bytes
        self._max_commands = settings.max_batch_commands
        self._token = settings.token.encode()
        # Without a read-only token this is empty, which no request can present. It is compared all the same, so that
        # the time of the comparison does not reveal whether a read-only token is set.
        self._readonly_token = (settings.readonly_token or "").encode()
        self._executor = executor
        self._parsing = asyncio.Lock()
        self.memory = ReplyMemory(_HELD_RESPONSES * settings.max_response_bytes)
        self.request_memory = RequestMemory(_HELD_REQUESTS * settings.max_request_bytes)
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        pacer, share = Pacer(receive), MemoryShare(self.memory)
        try:
            try:
                response = await self._respond(scope, receive, send, Caller(False, pacer, share))
                if response is not None:
                    await response.send(send, pacer, share)
            except GatewayError as exc:
                await _error(exc).send(send, pacer, share)
            except RecursionError:
                text = "ERR the reply is nested too deeply; the command was executed"
                await _error(ResponseTooLarge(text)).send(send, pacer, share)
        except ClientDisconnect:
            return  # there is no client to respond to
        finally:
            pacer.close()
            share.release()

    async def _respond(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> HttpResponse | None:
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
        caller = replace(caller, readonly=readonly)
        size = self._announced_bytes(headers)
        if size <= FREE_BYTES:
            body = await self._body(scope, receive)
            return await self._commands(method, segments, query, body, headers, caller)
        async with self.request_memory.body_of(size) as count:
            async with self.request_memory.upload():
                body = await self._body(scope, receive)
            count(len(body))  # a body in chunks was counted as one of the largest size
            return await self._commands(method, segments, query, body, headers, caller)

    async def _commands(
        self,
        method: str,
        segments: Sequence[bytes],
        query: Sequence[tuple[bytes, bytes]],
        body: bytes,
        headers: dict[bytes, bytes],
        caller: Caller,
    ) -> HttpResponse:
        caller.pacer.restart()
        if segments and segments[0] in _BATCHES:
            if method not in _METHODS_WITH_BODY:
                raise MethodNotAllowed("ERR a batch of commands must be sent with POST")
            return await self._batch(segments[0], body, headers, caller)
        if segments:
            command = parse.from_path(segments, body if method in _METHODS_WITH_BODY else b"", query)
        elif method in _METHODS_WITH_BODY:
            async with self._turn_to_parse(body):
                command = await parse.from_json(body, caller.pacer)
        else:
            raise MalformedRequest("ERR the path names no command")
        return await self._single(command, headers, caller)

    async def _health(self) -> HttpResponse:
        """Respond 200 if Redis executes PING. Needs no token, so the response holds nothing else."""
        reply = await self._executor.ping()
        if isinstance(reply, ErrorReply):
            raise RedisUnavailable("ERR Redis does not serve commands")
        return HttpResponse([encoding.body({"result": "OK"})])

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

    def _announced_bytes(self, headers: dict[bytes, bytes]) -> int:
        """Return the size of a body that is still to come: the largest one if it comes in chunks."""
        length = headers.get(b"content-length", b"")
        if length.isdigit():
            return min(int(length[:20]), self._max_bytes)
        return self._max_bytes if b"transfer-encoding" in headers else 0

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the request's body.

        Raises `RequestTooLarge`, `CodedRequest`, or ClientDisconnect if it is incomplete.
        """
        drain_bytes = _DRAIN_FACTOR * self._max_bytes
        body = await read_body(scope, receive, limit_bytes=self._max_bytes, drain_bytes=drain_bytes)
        if body is None:
            raise RequestTooLarge(
                f"ERR max request size exceeded. Limit: {self._max_bytes} bytes (GATEWAY_MAX_REQUEST_BYTES)"
            )
        coding = dict(scope["headers"]).get(b"content-encoding", b"")
        if body and coding.lower() not in (b"", b"identity"):
            raise CodedRequest("ERR the request body has a Content-Encoding; send it without compression")
        return body

    def _turn_to_parse(self, body: bytes) -> contextlib.AbstractAsyncContextManager[None]:
        """Let large bodies be parsed one after the other, because the objects of one may take 40 times its size."""
        return self._parsing if len(body) > _LARGE_BODY_BYTES else contextlib.nullcontext()

    async def _single(self, command: parse.Command, headers: dict[bytes, bytes], caller: Caller) -> HttpResponse:
        encoding_header = headers.get(b"upstash-encoding")
        if encoding.wants_resp2(headers.get(b"upstash-response-format"), encoding_header):
            return await self._single_resp2(command, caller)
        text_encoding = encoding.encoding_for(encoding_header)
        replies = await self._executor.single(command, caller)
        status = 400 if isinstance(replies[0], ErrorReply) else 200
        return HttpResponse(result_pieces(replies, text_encoding), status)

    async def _single_resp2(self, command: parse.Command, caller: Caller) -> HttpResponse:
        try:
            raw = await self._executor.single_raw(command, caller)
        except GatewayError as exc:
            # The client asked for RESP2, so it gets the gateway's errors in that format, too.
            raw, status = encoding.resp2_error(exc.text), exc.status
        else:
            status = 400 if raw.startswith(b"-") else 200
        return HttpResponse([raw], status, b"application/octet-stream")

    async def _batch(self, kind: bytes, body: bytes, headers: dict[bytes, bytes], caller: Caller) -> HttpResponse:
        encoding_header = headers.get(b"upstash-encoding")
        resp2 = kind == b"pipeline" and encoding.wants_resp2(headers.get(b"upstash-response-format"), encoding_header)
        text_encoding = encoding.encoding_for(encoding_header)
        async with self._turn_to_parse(body):
            batch = await parse.batch_from_json(body, self._max_commands, caller.pacer)
        if resp2:
            raw = await self._executor.pipeline_raw(batch, caller)
            return HttpResponse(raw, media_type=b"application/octet-stream")
        if kind == b"multi-exec":
            replies = await self._executor.transaction(batch, caller)
        else:
            try:
                replies = await self._executor.pipeline(batch, caller)
            except RedisUnavailable as exc:
                # A list with one error for each command, because the SDK raises an error that it finds in a list, but
                # fails with an AttributeError on a single object.
                return HttpResponse([encoding.body([{"error": exc.text}] * len(batch))], exc.status)
        return HttpResponse(batch_pieces(replies, text_encoding))

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


def _error(exc: GatewayError) -> HttpResponse:
    if isinstance(exc, BatchTooLong):
        log("gateway.limit_exceeded", level=logging.WARNING, reason=exc.text)
    return HttpResponse([encoding.error_body(exc.text)], exc.status)
