"""HTTP to the Redis REST API, whichever library sends it: bounded answers, no redirects, the contract's errors."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any, ClassVar, Self

import msgspec
from upstash_redis.errors import UpstashError

from infra.contract.errors import StoreUnavailable

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Size of an answer after decompression. Upstash and our gateway send at most 10 MB, which base64 makes 13 MB."""
MAX_IDLE_S = 5.0
"""Time for which an idle connection is kept, which is shorter than any server keeps it."""
MAX_SILENCE_S = 60.0
"""A subscription that brings neither a message nor a heartbeat for this time is considered dead."""


class RestResponse(msgspec.Struct, frozen=True):
    """Status and headers of an answer, and its body as it comes."""

    status: int
    headers: Mapping[str, str]
    parts: AsyncIterator[bytes]


class PipelinedError(int):
    """Error reply to a command of a pipeline. A number, because the SDK hands numbers on unchanged."""

    text: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the error with a text."""
        error = cls()
        error.text = text
        return error


class Answer:
    """Answer to a request of the SDK, which reads these two members."""

    def __init__(self, response: RestResponse, body: bytes | bytearray, commands: Sequence[Any]) -> None:
        self.headers = response.headers
        self._status = response.status
        self._body = body
        self._pipelined = len(commands) if commands and isinstance(commands[0], list) else None

    def json(self) -> Any:
        """Return the reply to a command, or a list with a reply to each command of a pipeline.

        An error in a pipeline becomes the result of its command, a PipelinedError: the SDK would drop the others.
        Raises UpstashError for a pipeline that was rejected as a whole, ValueError for what is not JSON, and
        StoreUnavailable for another document, which comes from a proxy: the SDK would trip over all but the second.
        """
        try:
            document = msgspec.json.decode(self._body)
        except RecursionError:
            raise StoreUnavailable("no reply from Redis: the answer is nested too deeply") from None
        except UnicodeDecodeError:
            raise StoreUnavailable("no reply from Redis: the answer is not UTF-8") from None
        if isinstance(document, dict) and isinstance(error := document.get("error"), str) and error:
            raise UpstashError(error)
        if self._status != HTTPStatus.OK:
            raise StoreUnavailable(f"no reply from Redis: status {self._status}")
        replies = [document] if self._pipelined is None else document
        if not isinstance(replies, list) or len(replies) != (self._pipelined or 1):
            raise StoreUnavailable("no reply from Redis: the answer does not have one reply to each command")
        if not all(isinstance(reply, dict) for reply in replies):
            raise StoreUnavailable("no reply from Redis: a reply is not an object")
        if not all(isinstance(reply.get("error", ""), str | None) for reply in replies):
            raise StoreUnavailable("no reply from Redis: an error is not a text")
        if self._pipelined is None:
            return document
        return [{"result": PipelinedError.of(each["error"])} if each.get("error") else each for each in replies]


class RestTransport(ABC):
    """Stands in for the SDK's `httpx.AsyncClient`, and streams subscriptions. Has no deadline: the caller sets one.

    Nothing is sent twice, and redirects are not followed. A cancelled request closes its connection. Methods raise
    StoreUnavailable, whose message contains neither token nor address. Proxies and certificates come from the
    environment: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR.
    """

    errors: ClassVar[tuple[type[Exception], ...]]
    """Errors of the library, raised by `exchange` and while its answer is read."""

    @abstractmethod
    def exchange(
        self, url: str, headers: Mapping[str, str], body: bytes, silence_s: float | None = None
    ) -> AbstractAsyncContextManager[RestResponse]:
        """Send a POST; the answer must have no pause longer than `silence_s`. Leaving closes an unread answer."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections."""

    async def post(self, url: str, *, headers: Mapping[str, str], json: Any) -> Answer:
        """Send a JSON document and return the answer, unless it has status 3xx, 408, 429 or 5xx."""
        headers = {**headers, "Content-Type": "application/json"}
        with self._translated_errors():
            async with self.exchange(url, headers, msgspec.json.encode(json)) as response:
                _raise_for_status(response)
                body = bytearray()
                async for part in response.parts:
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        raise StoreUnavailable(f"the answer of Redis has more than {MAX_ANSWER_BYTES} bytes")
        return Answer(response, body, json)

    @asynccontextmanager
    async def stream(self, url: str, *, headers: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Send an empty POST; yield the parts of an event stream as they come. Leaving closes the connection."""
        with self._translated_errors():
            async with self.exchange(url, headers, b"", MAX_SILENCE_S) as response:
                _raise_for_status(response)
                kind = response.headers.get("Content-Type", "")
                if response.status != HTTPStatus.OK or not kind.startswith("text/event-stream"):
                    raise StoreUnavailable(f"no event stream from Redis: status {response.status}")
                yield self._parts(response)

    async def _parts(self, response: RestResponse) -> AsyncIterator[bytes]:
        with self._translated_errors():
            async for part in response.parts:
                yield part

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except self.errors as exc:
            # Not `from exc`: its text can contain the address, and its attributes the token or a proxy's password.
            raise StoreUnavailable(f"no reply from Redis: {type(exc).__name__}") from None


_TEMPORARY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


def _raise_for_status(response: RestResponse) -> None:
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status in _TEMPORARY:
        raise StoreUnavailable(f"no reply from Redis: status {response.status}")
    if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
        raise StoreUnavailable(
            f"no reply from Redis: status {response.status}, a redirect, which is not followed because the token would "
            "go with it; UPSTASH_REDIS_REST_URL must be the final address"
        )
