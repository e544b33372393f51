"""HTTP to the Redis REST API: bounded answers, no redirects, the contract's errors. The library is `pyreqwest`."""

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import certifi
import msgspec
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, DetailedPyreqwestError, PyreqwestError
from pyreqwest.request import RequestBuilder
from pyreqwest.response import Response
from upstash_redis.errors import UpstashError

from infra.contract.errors import StoreUnavailable
from infra.settings import SettingsError

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Size of an answer after decompression. Upstash and our gateway send at most 10 MB, which base64 makes 13 MB."""
MAX_IDLE_S = 5.0
"""Time for which an idle connection is kept. Short, because a frozen process does not see that the server closes it."""
MAX_UNDER_WAY = 64
"""Commands under way, with those whose caller has left; a further one waits for its turn."""
MAX_SILENCE_S = 60.0
"""Time without a byte from the server after which an answer or a subscription is considered dead."""


class Answer:
    """Answer to a request of the SDK, which reads these two members."""

    def __init__(self, headers: Mapping[str, str], body: bytes, commands: Sequence[Any]) -> None:
        self.headers = headers
        self._body = body
        self._pipelined = len(commands) if commands and isinstance(commands[0], list) else None

    def json(self) -> Any:
        """Return the reply to a command, or a list with a reply to each command of a pipeline.

        Raises UpstashError for a pipeline that was rejected as a whole, ValueError for what is not JSON, and
        StoreUnavailable for another document, which comes from a proxy: the SDK would trip over all but the second.
        """
        try:
            document = msgspec.json.decode(self._body)
        except RecursionError:
            raise StoreUnavailable("no reply from Redis: the answer is nested too deeply") from None
        if isinstance(document, dict) and document.get("error"):
            raise UpstashError(document["error"])
        replies = [document] if self._pipelined is None else document
        if not isinstance(replies, list) or len(replies) != (self._pipelined or 1):
            raise StoreUnavailable("no reply from Redis: the answer does not have one reply to each command")
        if not all(isinstance(reply, dict) for reply in replies):
            raise StoreUnavailable("no reply from Redis: a reply is not an object")
        return document


class Transport:
    """Stands in for the SDK's `httpx.AsyncClient`, and streams subscriptions.

    Nothing is sent twice: redirects are not followed, and a request is repeated only if its connection turns out to be
    closed before the first byte was written. Methods raise StoreUnavailable, whose message contains neither token nor
    address. The constructor raises SettingsError.

    The library lets a cancelled request run on, unseen, until its answer or its timeout. Its connection is not used
    meanwhile, and MAX_UNDER_WAY bounds their number.

    Proxies and certificates come from the environment: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE,
    SSL_CERT_DIR.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        timeout = timedelta(seconds=timeout_s)
        self._commands = _build(url, _builder().timeout(timeout).max_connections(MAX_UNDER_WAY).pool_timeout(timeout))
        self._subscriptions = _build(url, _builder().connect_timeout(timeout))

    async def post(self, url: str, *, headers: Mapping[str, str], json: Any) -> Answer:
        """Send a JSON document and return the answer, unless it has status 3xx or 5xx."""
        request = _request(self._commands, url, headers).header("Content-Type", "application/json")
        with _translated_errors():
            async with request.body_bytes(msgspec.json.encode(json)).build_streamed() as response:
                _raise_for_status(response)
                body = await response.body_reader.read(MAX_ANSWER_BYTES + 1)
                if body is not None and len(body) > MAX_ANSWER_BYTES:
                    raise StoreUnavailable(f"the answer of Redis has more than {MAX_ANSWER_BYTES} bytes")
                return Answer(response.headers, bytes(body or b""), json)

    @asynccontextmanager
    async def stream(self, url: str, *, headers: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send an empty POST; yield the parts of an event stream as they come. Leaving closes the connection."""
        request = _request(self._subscriptions, url, headers)
        with _translated_errors():
            async with request.streamed_read_buffer_limit(0).build_streamed() as response:
                _raise_for_status(response)
                if response.status != 200 or "text/event-stream" not in (response.get_header("content-type") or ""):
                    raise StoreUnavailable(f"no event stream from Redis: status {response.status}")
                yield _parts(response)

    async def aclose(self) -> None:
        """Close all connections; requests under way fail."""
        await self._commands.close()
        await self._subscriptions.close()


def _builder() -> ClientBuilder:
    idle, silence = timedelta(seconds=MAX_IDLE_S), timedelta(seconds=MAX_SILENCE_S)
    return ClientBuilder().follow_redirects(False).pool_idle_timeout(idle).read_timeout(silence)


def _build(url: str, builder: ClientBuilder) -> Client:
    """Return a client with the proxies and the certificates of the environment. Raises SettingsError."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        builder = builder.no_proxy()  # the library knows domains and networks of NO_PROXY, but no ports
    named = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
    if parts.scheme != "https" or not named:
        # Minimal images have no certificates, without which the library does not even speak plain HTTP.
        builder = builder.add_root_certificate_pem(Path(certifi.where()).read_bytes())
    try:
        return builder.build()
    except BuilderError:
        raise SettingsError(f"{' and '.join(named)}: no certificate can be read from there") from None


def _request(client: Client, url: str, headers: Mapping[str, str]) -> RequestBuilder:
    try:
        return client.post(url).headers(headers)
    except ValueError:  # its message is the malformed address or header, which can be a secret
        raise StoreUnavailable("the address or the token of Redis is malformed") from None


async def _parts(response: Response) -> AsyncIterator[bytes]:
    with _translated_errors():
        while (part := await response.body_reader.read_chunk()) is not None:
            yield bytes(part)


def _raise_for_status(response: Response) -> None:
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise StoreUnavailable(f"no reply from Redis: status {response.status}")
    if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
        raise StoreUnavailable(
            f"no reply from Redis: status {response.status}, a redirect, which is not followed because the token would "
            "go with it; UPSTASH_REDIS_REST_URL must be the final address"
        )


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except PyreqwestError as exc:
        details = exc.details if isinstance(exc, DetailedPyreqwestError) else {"causes": None}
        # The first cause names the address, and the others the reason.
        reason = ": ".join(cause["message"] for cause in (details["causes"] or [])[1:])
        raise StoreUnavailable(f"no reply from Redis: {reason or exc.message}") from None
