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
from http import HTTPStatus
from ipaddress import ip_address

import httpx

from infra.address_guard import AddressGuard, AddressNotAllowed, HostNotFound, Resolve, is_private, is_public
from infra.checked_http import CheckedHttp, CheckedUrl, UrlNotAllowed, described
from infra.contract.errors import HostExhausted
from infra.contract.webhooks import MAX_URL_CHARS
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

_HEADERS = {"user-agent": "SwissBrain-Webhooks", "accept-encoding": "identity"}


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
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._private_hosts = private_hosts
        self._guard = AddressGuard(private_hosts, resolve)
        self._http = CheckedHttp(CONNECT_S)
        self._deadline_s = deadline_s

    def target(self, text: str) -> CheckedUrl:
        """Check a URL, but for the addresses of a name. Raises UrlNotAllowed."""
        target = CheckedUrl.of(text, max_chars=MAX_URL_CHARS)
        if "#" in text:
            raise UrlNotAllowed("it has a fragment ('#…'), which is never sent")
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
                    response = await self._http.send("POST", target, addresses, {**headers, **_HEADERS}, body, stack)
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


def _retry_after(response: httpx.Response) -> int | None:
    wait_s = retry_after_s(response.headers)
    return math.ceil(min(wait_s, MAX_RETRY_AFTER_S)) if wait_s else None
