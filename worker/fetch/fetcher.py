"""One fetch over HTTP: every connection goes to a checked address, and everything is bounded.

Requests carry no cookies, and nothing of the worker's environment but its certificates: no proxy, no `.netrc`. Each
request of a chain of redirects opens a new connection. A shared one could be reused for another name at the same
address, whose certificate would then not be checked.
"""

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

import httpx

from infra.address_guard import Address, AddressGuard, AddressNotAllowed, HostNotFound, InvalidHost, read_host
from infra.connection_errors import described
from infra.host_limits import raise_if_exhausted
from infra.host_patterns import host_port
from infra.one_exchange import OneExchange
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
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ENCODINGS = {"": False, "identity": False, "gzip": True, "x-gzip": True}
"""Content-Encoding: whether it is gzip."""
_TIMEOUT = {"connect": CONNECT_S, "read": None, "write": None, "pool": None}


@dataclass(frozen=True)
class Outgoing:
    """Request to be sent. Names of headers are in lower case."""

    method: str
    url: httpx.URL
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
        self._given_tls = tls

    async def fetch(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Fetched:
        """Send the request, follow redirects, and return the answer of any status. Raises ToolFailed, HostExhausted."""
        try:
            parsed = _parsed(url)
        except ValueError as exc:
            raise ToolFailed("invalid_input", f"the URL cannot be fetched: {exc}") from None
        outgoing = Outgoing(method, parsed, {name.lower(): value for name, value in headers.items()}, body)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._answer(outgoing) as response:
                following = _redirected(outgoing, response)
                if following is None:
                    return await self._received(outgoing, response)
            outgoing = following
        raise ToolFailed("fetch_failed", f"the answer is a chain of more than {MAX_REDIRECTS} redirects")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._given_tls or httpx.create_ssl_context()

    @asynccontextmanager
    async def _answer(self, outgoing: Outgoing) -> AsyncIterator[httpx.Response]:
        """Yield the answer before its body is read; errors of the connection become ToolFailed, also later ones."""
        host, port = _endpoint(outgoing.url)
        addresses = await self._addresses(host, port)
        async with AsyncExitStack() as stack:
            try:
                response = await self._send(outgoing, addresses, stack)
                stack.push_async_callback(response.aclose)
                yield response
            except (httpx.HTTPError, ssl.SSLError, OSError) as exc:
                raise_if_exhausted(exc)
                raise ToolFailed(
                    "fetch_failed", f"fetching from '{host_port(host, port)}' failed: {described(exc, CONNECT_S)}"
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

    async def _send(self, outgoing: Outgoing, addresses: Sequence[Address], stack: AsyncExitStack) -> httpx.Response:
        """Send the request to the first address that can be connected to."""
        host, port = _endpoint(outgoing.url)
        fixed = {"host": _host_header(outgoing.url, host, port), "accept-encoding": "gzip"}
        transport = await stack.enter_async_context(OneExchange(self._tls))
        for number, address in enumerate(addresses, 1):
            request = httpx.Request(
                outgoing.method,
                outgoing.url.copy_with(host=str(address)),
                headers={**_DEFAULT_HEADERS, **outgoing.headers, **fixed},
                content=outgoing.body,
                # The certificate must be valid for the name, although the connection is made to an address.
                extensions={"timeout": _TIMEOUT, "sni_hostname": host},
            )
            try:
                return await transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise AssertionError("the guard returns at least one address")

    async def _received(self, outgoing: Outgoing, response: httpx.Response) -> Fetched:
        """Read the body within the limit."""
        announced = _announced(response)
        body = b"" if outgoing.method == "HEAD" else await self._body(response, announced)
        return Fetched(
            status=response.status_code,
            url=str(outgoing.url),
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
        url = _parsed(location.replace(" ", "%20"), outgoing.url)
    except ValueError as exc:
        raise ToolFailed("fetch_failed", f"the answer redirects to a URL that cannot be fetched: {exc}") from None
    if outgoing.url.scheme == "https" and url.scheme == "http":
        raise ToolFailed("fetch_not_allowed", "the answer redirects from https to http, which is not followed")
    method, body, headers = outgoing.method, outgoing.body, outgoing.headers
    if method == "POST" and status not in {307, 308}:
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if name != "content-type"}
    if (url.scheme, _endpoint(url)) != (outgoing.url.scheme, _endpoint(outgoing.url)):
        headers = {name: value for name, value in headers.items() if name in _OTHER_ORIGIN}
    return Outgoing(method, url, headers, body)


def _parsed(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """Return the URL without its fragment, relative to `base`. Raises ValueError for a URL that is not allowed.

    The message does not repeat the URL, which may hold credentials.
    """
    if len(text) > MAX_URL_CHARS:
        raise ValueError(f"it has more than {MAX_URL_CHARS} characters")
    # Browsers and libraries read such a URL in different ways.
    if any(char <= " " or char in "\\\x7f" for char in text):
        raise ValueError("it holds a space, a control character or a backslash")
    try:
        url = (base.join(text) if base else httpx.URL(text)).copy_with(fragment=None)
    except (httpx.InvalidURL, UnicodeError):
        raise ValueError("it is not valid") from None
    if url.scheme not in _DEFAULT_PORTS:
        raise ValueError("it does not begin with http:// or https://")
    if url.userinfo:
        raise ValueError("it holds credentials")
    try:
        _, port = _endpoint(url)
    except InvalidHost as exc:
        raise ValueError(str(exc)) from None
    if not 0 < port < 65536:
        raise ValueError("its port is not between 1 and 65535")
    return url


def _endpoint(url: httpx.URL) -> tuple[str, int]:
    """Return host and port. Raises InvalidHost."""
    return read_host(url.raw_host.decode("ascii")), _DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def _host_header(url: httpx.URL, host: str, port: int) -> str:
    shown = host_port(host, port)
    return shown.removesuffix(f":{port}") if port == _DEFAULT_PORTS[url.scheme] else shown


def _announced(response: httpx.Response) -> int | None:
    length: str = response.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
