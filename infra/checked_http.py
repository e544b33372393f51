"""HTTP to hosts that users name: the check of a URL, and a request to one of the checked addresses of its host.

The addresses come from `infra.address_guard`. Errors repeat nothing of the URL, which may hold a secret of its user.
"""

import os
import ssl
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cached_property

import httpx

from infra.address_guard import Address, InvalidHost, read_host
from infra.host_patterns import host_port
from infra.one_exchange import OneExchange

_DEFAULT_PORTS = {"http": 80, "https": 443}


class UrlNotAllowed(Exception):
    """URL that may not be called."""


@dataclass(frozen=True)
class CheckedUrl:
    """URL with its host, as `read_host` returns it, and its port."""

    url: httpx.URL
    host: str
    port: int

    @classmethod
    def of(cls, text: str, *, max_chars: int, base: httpx.URL | None = None) -> "CheckedUrl":
        """Check a URL, which may be relative to `base`. Raises UrlNotAllowed."""
        if len(text) > max_chars:
            raise UrlNotAllowed(f"it has more than {max_chars} characters")
        # Browsers and libraries read such a URL in different ways.
        if any(char <= " " or char in "\\\x7f" for char in text):
            raise UrlNotAllowed("it holds a space, a control character or a backslash")
        try:
            url = base.join(text) if base else httpx.URL(text)
        except (httpx.InvalidURL, UnicodeError):
            raise UrlNotAllowed("it is not valid") from None
        if url.scheme not in _DEFAULT_PORTS:
            raise UrlNotAllowed("it does not begin with https:// or http://")
        if url.userinfo:
            raise UrlNotAllowed("it holds credentials before the host")
        try:
            host = read_host(url.raw_host.decode("ascii"))
        except InvalidHost as exc:
            raise UrlNotAllowed(str(exc)) from None
        port = _DEFAULT_PORTS[url.scheme] if url.port is None else url.port
        if not 0 < port < 65536:
            raise UrlNotAllowed("its port is not between 1 and 65535")
        return cls(url, host, port)

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.url.scheme, self.host, self.port

    @property
    def host_header(self) -> str:
        """Value of the header `Host`: without the port, if it is the default of the scheme."""
        shown = host_port(self.host, self.port)
        return shown.removesuffix(f":{self.port}") if self.port == _DEFAULT_PORTS[self.url.scheme] else shown


class CheckedHttp:
    """Sends requests, each on a connection of its own.

    `connect_s`: deadline for connecting to one address; `tls`: certificates to trust, the usual ones if it is None.
    """

    def __init__(self, connect_s: float, tls: ssl.SSLContext | None = None) -> None:
        self._given_tls = tls
        self._connect_s = connect_s

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._given_tls or httpx.create_ssl_context()

    async def send(
        self,
        method: str,
        target: CheckedUrl,
        addresses: Sequence[Address],
        headers: Mapping[str, str],
        body: bytes | None,
        stack: AsyncExitStack,
    ) -> httpx.Response:
        """Send the request to the first address that can be connected to; `stack` closes answer and connection.

        Other deadlines are the caller's. Raises httpx.HTTPError, ssl.SSLError, OSError.
        """
        transport = await stack.enter_async_context(OneExchange(self._tls))
        timeout = {"connect": self._connect_s, "read": None, "write": None, "pool": None}
        for number, address in enumerate(addresses, 1):
            request = httpx.Request(
                method,
                target.url.copy_with(host=str(address)),
                headers={**headers, "host": target.host_header},
                content=body,
                # The certificate must be valid for the name, although the connection is made to an address.
                extensions={"timeout": timeout, "sni_hostname": target.host},
            )
            try:
                response = await transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(addresses):
                    raise
                continue
            stack.push_async_callback(response.aclose)
            return response
        raise AssertionError("the guard returns at least one address")


def described(exc: BaseException, connect_s: float) -> str:
    """Return what is known of an error of `CheckedHttp`; the texts of libraries may contain the URL.

    `connect_s`: deadline for connecting.
    """
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or 'closed'}"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    if isinstance(exc, httpx.TimeoutException):
        return f"no connection within {connect_s:g} s"
    if isinstance(exc, httpx.ProtocolError):
        return "the answer is not valid HTTP, or was cut"
    return f"the connection was lost ({type(exc).__name__})"
