"""Posts to the URLs of webhooks: which URLs are allowed, the signature, and one bounded exchange.

Every connection goes to a checked address (`infra.address_guard`), redirects are not followed, and of the answer only
the status and `Retry-After` are used.
"""

import asyncio
import base64
import hashlib
import hmac
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from ipaddress import ip_address

import httpx

from infra.address_guard import (
    Address,
    AddressGuard,
    AddressNotAllowed,
    HostNotFound,
    InvalidHost,
    Resolve,
    is_private,
    is_public,
    read_host,
)
from infra.connection_errors import described
from infra.contract.errors import HostExhausted
from infra.contract.webhooks import MAX_URL_CHARS
from infra.host_patterns import host_port
from infra.one_exchange import OneExchange
from infra.retry_after import retry_after_s

DEADLINE_S = 15.0
"""Deadline for the status of the answer, shorter than that of API gateways for the call of QStash."""
HURRIED_S = 2.0
"""The same deadline beside too many other exchanges of the same user."""
CONNECT_S = 5.0
"""Deadline for connecting to one address."""
MAX_ANSWER_BYTES = 16 * 1024
ANSWER_S = 2.0
"""Bytes of the answer's body that are read, and the time for it. The body is not used: it is read so that a receiver
which says more than its status sees no reset connection."""
MIN_PACKET_BYTES = 256
"""Bytes as which a smaller chunk of the body counts, because it costs as much time."""
MAX_RETRY_AFTER_S = 3600
PRIVATE_HOSTS = "EDGE_WEBHOOK_PRIVATE_HOSTS"
SECRET_PREFIX = "whsec_"  # noqa: S105

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TIMEOUT = {"connect": CONNECT_S, "read": None, "write": None, "pool": None}


class UrlNotAllowed(Exception):
    """URL that may not be called. The message does not repeat the URL, which may hold a secret of its user."""


@dataclass(frozen=True)
class WebhookTarget:
    """URL of a webhook with its host, as `read_host` returns it, and its port."""

    url: httpx.URL
    host: str
    port: int


@dataclass(frozen=True)
class Receipt:
    """End of an exchange. `status`: of the answer, None without one; `error`: why the event is not accepted.

    `final`: another attempt would end in the same way.
    """

    ms: int
    status: int | None = None
    error: str | None = None
    final: bool = False
    retry_after_s: int | None = None

    @property
    def accepted(self) -> bool:
        """Return whether the receiver has the event."""
        return self.error is None


class WebhookHttp:
    """Client for the URLs of webhooks.

    `private_hosts`: pairs of a host and a port that may be called over http, and whose addresses may be private.
    """

    def __init__(
        self,
        private_hosts: frozenset[tuple[str, int]] = frozenset(),
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._private_hosts = private_hosts
        self._guard = AddressGuard(private_hosts, resolve)
        self._given_tls = tls
        self._deadline_s = deadline_s

    def target(self, text: str) -> WebhookTarget:
        """Return the target of a URL, which is checked but for the addresses of a name. Raises UrlNotAllowed."""
        target = _parsed(text)
        listed = (target.host, target.port) in self._private_hosts
        if target.url.scheme != "https" and not listed:
            raise UrlNotAllowed(f"it does not begin with https://, and its host is not in {PRIVATE_HOSTS}")
        with suppress(ValueError):
            address = ip_address(target.host)
            if not (is_public(address) or (listed and is_private(address))):
                raise UrlNotAllowed(f"its address is not public, and not in {PRIVATE_HOSTS}")
        return target

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, *, hurried: bool = False) -> Receipt:
        """Post a body; `hurried`: the answer must begin within HURRIED_S. Never raises an error of the exchange."""
        began = time.monotonic()
        deadline_s = min(self._deadline_s, HURRIED_S) if hurried else self._deadline_s

        def receipt(
            status: int | None = None, error: str | None = None, *, final: bool = False, after_s: int | None = None
        ) -> Receipt:
            return Receipt(round((time.monotonic() - began) * 1000), status, error, final, after_s)

        try:
            target = self.target(url)
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(deadline_s):
                    addresses = await self._guard.addresses(target.host, target.port)
                    response = await self._send(target, addresses, headers, body, stack)
                # Not within the deadline: a receiver that has accepted the event in time must not get it again.
                await _discard(response)
        except UrlNotAllowed as exc:
            return receipt(error=f"the URL is not allowed: {exc}", final=True)
        except AddressNotAllowed:
            return receipt(error="the host has an address that is not public", final=True)
        except HostNotFound:
            return receipt(error="the name of the host cannot be resolved")
        except HostExhausted as exc:
            return receipt(error=str(exc))
        except TimeoutError:
            return receipt(error=f"no answer within {deadline_s:g} s")
        except (httpx.HTTPError, ssl.SSLError, OSError) as exc:
            return receipt(error=described(exc, CONNECT_S))
        status = response.status_code
        if response.is_success:
            return receipt(status)
        gone = status == HTTPStatus.GONE
        redirect = "; redirects are not followed" if response.is_redirect else ""
        return receipt(status, f"the answer has status {status}{redirect}", final=gone, after_s=_retry_after(response))

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._given_tls or httpx.create_ssl_context()

    async def _send(
        self,
        target: WebhookTarget,
        addresses: Sequence[Address],
        headers: Mapping[str, str],
        body: bytes,
        stack: AsyncExitStack,
    ) -> httpx.Response:
        """Send the request to the first address that can be connected to."""
        host = host_port(target.host, target.port)
        if target.port == _DEFAULT_PORTS[target.url.scheme]:
            host = host.removesuffix(f":{target.port}")
        transport = await stack.enter_async_context(OneExchange(self._tls))
        for number, address in enumerate(addresses, 1):
            request = httpx.Request(
                "POST",
                target.url.copy_with(host=str(address)),
                headers={**headers, "host": host, "user-agent": "SwissBrain-Webhooks", "accept-encoding": "identity"},
                content=body,
                # The certificate must be valid for the name, although the connection is made to an address.
                extensions={"timeout": _TIMEOUT, "sni_hostname": target.host},
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


def user_secret(key: str, user: str) -> str:
    """Return the secret with which the events of a user are signed, as `whsec_…`."""
    digest = hmac.new(key.encode(), f"swissbrain webhook secret of {user}".encode(), hashlib.sha256).digest()
    return SECRET_PREFIX + base64.b64encode(digest).decode()


def signed_headers(secrets: Sequence[str], event_id: str, now_s: int, body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks, with one signature for each secret."""
    content = f"{event_id}.{now_s}.".encode() + body
    signatures = []
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
        signatures.append(f"v1,{base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()}")
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": " ".join(signatures),
    }


async def _discard(response: httpx.Response) -> None:
    """Read a bit of the body. The status is what counts, so an error here is none of the exchange."""
    received = 0
    with suppress(httpx.HTTPError, ssl.SSLError, OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            async for packet in response.aiter_raw():
                received += max(len(packet), MIN_PACKET_BYTES)
                if received >= MAX_ANSWER_BYTES:
                    return


def _parsed(text: str) -> WebhookTarget:
    """Return the target of a URL. Raises UrlNotAllowed."""
    if len(text) > MAX_URL_CHARS:
        raise UrlNotAllowed(f"it has more than {MAX_URL_CHARS} characters")
    # Browsers and libraries read such a URL in different ways.
    if any(char <= " " or char in "\\\x7f" for char in text):
        raise UrlNotAllowed("it holds a space, a control character or a backslash")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError):
        raise UrlNotAllowed("it is not valid") from None
    if url.scheme not in _DEFAULT_PORTS:
        raise UrlNotAllowed("it does not begin with https://")
    if url.userinfo:
        raise UrlNotAllowed("it holds credentials before the host")
    if url.fragment:
        raise UrlNotAllowed("it has a fragment ('#…'), which is never sent")
    try:
        host = read_host(url.raw_host.decode("ascii"))
    except InvalidHost as exc:
        raise UrlNotAllowed(str(exc)) from None
    port = _DEFAULT_PORTS[url.scheme] if url.port is None else url.port
    if not 0 < port < 65536:
        raise UrlNotAllowed("its port is not between 1 and 65535")
    return WebhookTarget(url, host, port)


def _retry_after(response: httpx.Response) -> int | None:
    wait_s = retry_after_s(response.headers)
    return math.ceil(min(wait_s, MAX_RETRY_AFTER_S)) if wait_s else None
