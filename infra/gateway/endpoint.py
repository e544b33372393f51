"""The one ASGI endpoint: authenticates, reads, dispatches, answers."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from infra.gateway import commands as parse
from infra.gateway import encoding
from infra.gateway.errors import BadRequest, GatewayError, NotAllowed, RedisUnavailable, TooLarge, Unauthorized
from infra.gateway.execute import Executor
from infra.gateway.mailbox import Ending
from infra.gateway.policy import no_permission
from infra.gateway.resp import ErrorReply
from infra.gateway.settings import GatewaySettings
from infra.gateway.streams import Streams
from infra.logging import log

_METHODS = frozenset({"GET", "POST", "PUT", "HEAD"})
_WITH_BODY = frozenset({"POST", "PUT"})
HEALTH_PATH = b"/_health"  # no Redis command begins with an underscore
_STREAMS = frozenset({b"subscribe", b"psubscribe", b"monitor"})
_BATCHES = frozenset({b"pipeline", b"multi-exec"})


@dataclass(frozen=True)
class _Answer:
    body: bytes
    status: int = 200
    media_type: bytes = b"application/json"


class _ClientGone(Exception):
    """The client left before its request was complete: nothing runs and nobody is there to answer."""


class Endpoint:
    def __init__(self, settings: GatewaySettings, executor: Executor, streams: Streams) -> None:
        self._max_bytes = settings.max_request_bytes
        self._token = settings.token.encode()
        # Without a read-only token, one nobody can present: compared all the same, so timing says nothing.
        self._readonly_token = (settings.readonly_token or "").encode()
        self._executor = executor
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._respond(scope, receive, send)
        except _ClientGone:
            return
        except GatewayError as exc:
            answer = _Answer(encoding.error_body(exc.text), exc.status)
        if answer is not None:
            await _send(answer, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> _Answer | None:
        """None when the answer was a stream and is over."""
        method: str = scope["method"]
        if method not in _METHODS:
            raise NotAllowed("ERR only HEAD, GET, POST and PUT are allowed")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if scope["raw_path"] == HEALTH_PATH:
            return await self._health()
        query, query_token = parse.split_query(scope["query_string"])
        readonly = self._authenticate(headers.get(b"authorization"), query_token)
        segments = parse.split_path(scope["raw_path"])
        if segments and segments[0].lower() in _STREAMS and method != "HEAD":
            await self._stream(segments, readonly, receive, send)
            return None
        body = await self._body(headers, receive)
        if segments and segments[0] in _BATCHES:
            if method not in _WITH_BODY:
                raise NotAllowed("ERR a batch of commands must be sent with POST")
            return await self._batch(segments[0], body, headers, readonly)
        if segments:
            command = parse.from_path(segments, body if method in _WITH_BODY else b"", query)
        elif method in _WITH_BODY:
            command = parse.from_json(body)
        else:
            raise BadRequest("ERR the path names no command")
        return await self._single(command, headers, readonly)

    async def _health(self) -> _Answer:
        """Without a token, so it says nothing but whether Redis answers."""
        reply = await self._executor.one([b"PING"], readonly=False)
        if isinstance(reply, ErrorReply):
            raise RedisUnavailable("ERR Redis does not serve commands")
        return _Answer(encoding.body({"result": "OK"}))

    def _authenticate(self, authorization: bytes | None, query_token: bytes | None) -> bool:
        """Whether the token is the read-only one. Raises `Unauthorized`."""
        token = query_token or b""
        if authorization is not None:
            scheme, _, credentials = authorization.partition(b" ")
            token = credentials.strip() if scheme.lower() == b"bearer" else b""
        standard = hmac.compare_digest(token, self._token)
        readonly = hmac.compare_digest(token, self._readonly_token)
        if not token or not (standard or readonly):
            raise Unauthorized("WRONGPASS invalid or missing auth token")
        return not standard

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Raises `TooLarge`, after reading a little further: a client still sending might never see the answer."""
        length = headers.get(b"content-length", b"")
        patience = 2 * self._max_bytes
        size = int(length) if length.isdigit() and int(length) > patience else 0
        parts: list[bytes] = []
        more = True
        while more and size <= patience:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            part: bytes = message.get("body", b"")
            size += len(part)
            if size <= self._max_bytes:
                parts.append(part)
            more = message.get("more_body", False)
        if size > self._max_bytes:
            raise TooLarge(f"ERR max request size exceeded: the limit is {self._max_bytes} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _single(self, command: parse.Command, headers: dict[bytes, bytes], readonly: bool) -> _Answer:
        encoding_header = headers.get(b"upstash-encoding")
        if encoding.wants_resp2(headers.get(b"upstash-response-format"), encoding_header):
            return await self._single_resp2(command, readonly)
        encode = encoding.encoder_for(encoding_header)
        reply = await self._executor.one(command, readonly)
        return _Answer(
            encoding.body(encoding.envelope(reply, encode)), status=400 if isinstance(reply, ErrorReply) else 200
        )

    async def _single_resp2(self, command: parse.Command, readonly: bool) -> _Answer:
        status = 200
        try:
            raw = await self._executor.one_raw(command, readonly)
        except GatewayError as exc:
            raw, status = encoding.resp2_error(exc.text), exc.status
        else:
            status = 400 if raw.startswith(b"-") else 200
        return _Answer(raw, status, b"application/octet-stream")

    async def _batch(self, kind: bytes, body: bytes, headers: dict[bytes, bytes], readonly: bool) -> _Answer:
        encoding_header = headers.get(b"upstash-encoding")
        batch = parse.many_from_json(body)
        if kind == b"multi-exec":
            encode = encoding.encoder_for(encoding_header)
            replies = await self._executor.transaction(batch, readonly)
            return _Answer(encoding.body([encoding.envelope(reply, encode) for reply in replies]))
        if encoding.wants_resp2(headers.get(b"upstash-response-format"), encoding_header):
            return _Answer(await self._executor.pipeline_raw(batch, readonly), media_type=b"application/octet-stream")
        encode = encoding.encoder_for(encoding_header)
        try:
            replies = await self._executor.pipeline(batch, readonly)
        except RedisUnavailable as exc:
            # The list its clients expect, so that an SDK raises the error instead of tripping over an object.
            return _Answer(encoding.body([{"error": exc.text}] * len(batch)), exc.status)
        return _Answer(encoding.body([encoding.envelope(reply, encode) for reply in replies]))

    async def _stream(self, segments: Sequence[bytes], readonly: bool, receive: Receive, send: Send) -> None:
        kind, *names = parse.from_path(segments, b"", ())
        kind = kind.lower()
        if readonly:
            raise no_permission(kind)
        if kind == b"monitor":
            ending = await self._streams.monitor(receive, send)
        elif not names or not all(names):
            raise BadRequest(f"ERR wrong number of arguments for '{kind.decode()}' command")
        else:
            ending = await self._streams.subscribe(names, kind == b"psubscribe", receive, send)
        if ending is Ending.OVERFLOW:
            log("gateway.slow_client_cut_off", level=logging.WARNING)


async def _send(answer: _Answer, send: Send) -> None:
    headers = [
        (b"content-type", answer.media_type),
        (b"content-length", str(len(answer.body)).encode()),
        (b"upstash-sync-token", encoding.sync_token()),
    ]
    if answer.status == NotAllowed.status:
        headers.append((b"allow", b"HEAD, GET, POST, PUT"))
    if answer.status == TooLarge.status:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
