"""One fetch over HTTP: every connection goes to a checked address, and everything is bounded.

Requests carry no cookies, and nothing of the worker's environment but its certificates: no proxy, no `.netrc`. Each
request of a chain of redirects opens a new connection. A shared one could be reused for another name at the same
address, whose certificate would then not be checked.
"""

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import httpx

from infra.address_guard import Address, AddressGuard, AddressNotAllowed, HostNotFound
from infra.checked_http import CheckedHttp, CheckedUrl, UrlNotAllowed, described
from infra.host_limits import raise_if_exhausted
from infra.host_patterns import host_port
from worker.fetch.gzip_body import DamagedGzip, GzipBody
from worker.fetch.settings import HOSTS, MAX_BYTES, PRIVATE_HOSTS, FetchSettings
from worker.toolkit.base import ToolFailed

MAX_REDIRECTS = 5
MAX_URL_CHARS = 8192
"""Limit for the URL of a redirect."""
CONNECT_S = 10.0
"""Deadline for connecting to one address; the caller sets the deadline of the whole exchange."""
MAX_TYPE_CHARS = 200
MAX_OVERHEAD_BYTES = 64 * 1024
"""Bytes by which a compressed body may be larger than the limit of the uncompressed one."""

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_OTHER_ORIGIN = frozenset(("accept", "accept-language", "content-type", "user-agent"))
"""Headers that another origin gets too; all others may be secrets."""
_DEFAULT_HEADERS = {"accept": "*/*", "user-agent": "SwissBrain"}
_ENCODINGS = {"": False, "identity": False, "gzip": True, "x-gzip": True}
"""Content-Encoding: whether it is gzip."""


@dataclass(frozen=True)
class Outgoing:
    """Request to be sent. Names of headers are in lower case."""

    method: str
    target: CheckedUrl
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True)
class Fetched:
    """Answer. `url` is the one that answered, after redirects; `announced` the value of Content-Length."""

    status: int
    url: str
    content_type: str
    announced: int | None
    body: bytes


class Fetcher:
    """Fetches URLs with the hosts and limits of its settings. `tls`: certificates to trust."""

    def __init__(self, settings: FetchSettings, guard: AddressGuard, tls: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._guard = guard
        self._http = CheckedHttp(CONNECT_S, tls)

    async def fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Fetched:
        """Send the request, follow redirects, and return the answer of any status. Raises ToolFailed, HostExhausted."""
        try:
            target = _checked(url)
        except UrlNotAllowed as exc:
            raise ToolFailed("invalid_input", f"the URL cannot be fetched: {exc}") from None
        outgoing = Outgoing(method, target, {name.lower(): value for name, value in headers.items()}, body)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._answer(outgoing) as response:
                following = _redirected(outgoing, response)
                if following is None:
                    return await self._received(outgoing, response)
            outgoing = following
        raise ToolFailed("fetch_failed", f"the answer is a chain of more than {MAX_REDIRECTS} redirects")

    @asynccontextmanager
    async def _answer(self, outgoing: Outgoing) -> AsyncIterator[httpx.Response]:
        """Yield the answer before its body is read; errors of the connection become ToolFailed, also later ones."""
        target = outgoing.target
        addresses = await self._addresses(target.host, target.port)
        headers = {**_DEFAULT_HEADERS, **outgoing.headers, "accept-encoding": "gzip"}
        async with AsyncExitStack() as stack:
            try:
                yield await self._http.send(outgoing.method, target, addresses, headers, outgoing.body, stack)
            except (httpx.HTTPError, ssl.SSLError, OSError) as exc:
                raise_if_exhausted(exc)
                shown = host_port(target.host, target.port)
                raise ToolFailed(
                    "fetch_failed", f"fetching from '{shown}' failed: {described(exc, CONNECT_S)}"
                ) from exc

    async def _addresses(self, host: str, port: int) -> Sequence[Address]:
        shown = host_port(host, port)
        if not self._settings.allows(host, port):
            raise ToolFailed("fetch_not_allowed", f"'{shown}' is not among the hosts that {HOSTS} allows")
        try:
            return await self._guard.addresses(host, port)
        except AddressNotAllowed as exc:
            hint = f"if it is a host of your own, list '{shown}' in {PRIVATE_HOSTS}"
            raise ToolFailed("address_not_allowed", f"{exc}; {hint}") from None
        except HostNotFound as exc:
            raise ToolFailed("fetch_failed", str(exc)) from None

    async def _received(self, outgoing: Outgoing, response: httpx.Response) -> Fetched:
        """Read the body within the limit."""
        announced = _announced(response)
        body = b"" if outgoing.method == "HEAD" else await self._body(response, announced)
        return Fetched(
            status=response.status_code,
            url=str(outgoing.target.url),
            content_type=response.headers.get("content-type", "")[:MAX_TYPE_CHARS],
            announced=announced,
            body=body,
        )

    async def _body(self, response: httpx.Response, announced: int | None) -> bytes:
        limit = self._settings.max_bytes
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            raise ToolFailed(
                "fetch_failed", f"the answer is compressed with '{encoding[:40]}'; only gzip was asked for"
            )
        gzip = GzipBody() if _ENCODINGS[encoding] else None
        received, body = 0, bytearray()
        too_large = ToolFailed("too_large", f"the body of the answer has more than {limit} bytes ({MAX_BYTES})")
        if announced is not None and announced > limit + MAX_OVERHEAD_BYTES * bool(gzip):
            raise too_large
        try:
            async for packet in response.aiter_raw():
                received += len(packet)
                body += gzip.feed(packet, limit + 1 - len(body)) if gzip else packet
                if len(body) > limit or received > limit + MAX_OVERHEAD_BYTES:
                    raise too_large
            if gzip:
                gzip.end()
        except DamagedGzip as exc:
            raise ToolFailed("fetch_failed", str(exc)) from None
        return bytes(body)


def _redirected(outgoing: Outgoing, response: httpx.Response) -> Outgoing | None:
    """Return the request that a redirect asks for, or None if the answer is no redirect. Raises ToolFailed."""
    status, location = response.status_code, response.headers.get("location")
    if status not in _REDIRECTS or location is None:
        return None
    try:
        target = _checked(location.replace(" ", "%20"), outgoing.target.url)
    except UrlNotAllowed as exc:
        raise ToolFailed("fetch_failed", f"the answer redirects to a URL that cannot be fetched: {exc}") from None
    if outgoing.target.url.scheme == "https" and target.url.scheme == "http":
        raise ToolFailed("fetch_not_allowed", "the answer redirects from https to http, which is not followed")
    method, body, headers = outgoing.method, outgoing.body, outgoing.headers
    if method == "POST" and status not in {307, 308}:
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if name != "content-type"}
    if target.origin != outgoing.target.origin:
        headers = {name: value for name, value in headers.items() if name in _OTHER_ORIGIN}
    return Outgoing(method, target, headers, body)


def _checked(text: str, base: httpx.URL | None = None) -> CheckedUrl:
    """Return the URL without its fragment, relative to `base`. Raises UrlNotAllowed."""
    target = CheckedUrl.of(text, max_chars=MAX_URL_CHARS, base=base)
    return replace(target, url=target.url.copy_with(fragment=None))


def _announced(response: httpx.Response) -> int | None:
    length: str = response.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
