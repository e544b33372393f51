"""Transfers with signed URLs: GET and PUT over HTTP, repeated while the store fails. All functions block.

Errors name the file and the status, never the URL: it is a secret.
"""

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from threading import Event
from typing import TypeVar
from urllib.parse import urlsplit

CHUNK_BYTES = 256 * 1024
TIMEOUT_S = 20
"""Time limit for one read or write of the socket."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0

Result = TypeVar("Result")


class TransferFailed(Exception):
    """Transfer that failed. `final`: another try would fail too."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Transfers:
    """Transfers until `deadline_s` of the monotonic clock, or until `stop` is set."""

    def __init__(self, deadline_s: float, stop: Event) -> None:
        self._deadline_s = deadline_s
        self._stop = stop

    def repeat(self, transfer: Callable[[], Result]) -> Result:
        """Call `transfer` until it succeeds. Raises TransferFailed of the last try."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return transfer()
            except TransferFailed as error:
                left_s = self._deadline_s - time.monotonic()
                if error.final or left_s <= 0 or self._stop.wait(min(pause_s, left_s)):
                    raise
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    @contextmanager
    def open(self, what: str, url: str) -> Iterator[Iterator[bytes]]:
        """Open an object; the iterator over its bytes raises TransferFailed if the response ends early."""
        with _requested(what, "GET", url, None, {}) as response:
            yield self._chunks(what, response)

    def fetch(self, what: str, url: str, max_bytes: int) -> bytes:
        """Return an object of at most `max_bytes`."""

        def once() -> bytes:
            data = bytearray()
            with self.open(what, url) as chunks:
                for chunk in chunks:
                    data += chunk
                    if len(data) > max_bytes:
                        raise TransferFailed(f"{what} has more than {max_bytes} bytes", final=True)
            return bytes(data)

        return self.repeat(once)

    def store(self, what: str, url: str, chunks: Callable[[], Iterable[bytes]], size_bytes: int) -> None:
        """Store an object of exactly `size_bytes`; `chunks` is called for each try."""

        def once() -> None:
            headers = {"Content-Length": str(size_bytes)}
            with _requested(what, "PUT", url, self._checked(what, chunks(), size_bytes), headers) as response:
                response.read(CHUNK_BYTES)

        self.repeat(once)

    def _checked(self, what: str, chunks: Iterable[bytes], size_bytes: int) -> Iterator[bytes]:
        for chunk in chunks:
            self._check()
            size_bytes -= len(chunk)
            yield chunk
        # The store would wait for the missing bytes.
        if size_bytes:
            raise TransferFailed(f"{what} lacks {size_bytes} bytes of its size", final=True)

    def _chunks(self, what: str, response: HTTPResponse) -> Iterator[bytes]:
        size_bytes, expected = 0, response.length
        try:
            while chunk := response.read(CHUNK_BYTES):
                self._check()
                size_bytes += len(chunk)
                yield chunk
        except (OSError, HTTPException) as error:
            raise TransferFailed(f"the object store failed with {type(error).__name__} for {what}") from None
        if expected is not None and size_bytes != expected:
            raise TransferFailed(f"the response of the object store was truncated for {what}")

    def _check(self) -> None:
        if self._stop.is_set() or time.monotonic() > self._deadline_s:
            raise TransferFailed("the transfer was stopped or took too long", final=True)


@contextmanager
def _requested(
    what: str, method: str, url: str, body: Iterable[bytes] | None, headers: dict[str, str]
) -> Iterator[HTTPResponse]:
    connection = _connection(url)
    try:
        try:
            connection.request(method, url[len("/".join(url.split("/", 3)[:3])) :], body=body, headers=headers)
            response = connection.getresponse()
        except (OSError, HTTPException) as error:
            raise TransferFailed(f"the object store failed with {type(error).__name__} for {what}") from None
        if response.status != 200:
            # 408 and 429 ask for another try; other refusals are final, such as 403 for an expired signature.
            final = 300 <= response.status < 500 and response.status not in {408, 429}
            raise TransferFailed(f"the object store answered {response.status} for {what}", final=final)
        yield response
    finally:
        connection.close()


def _connection(url: str) -> HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return HTTPSConnection(parts.netloc, timeout=TIMEOUT_S, context=ssl.create_default_context())
    if parts.scheme == "http":
        return HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
    raise TransferFailed("the URL of an object is neither https nor http", final=True)
