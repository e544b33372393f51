"""Guard for connections to hosts that a user, a model or a web page names.

A name is resolved once, every address of the answer is checked, and the caller connects to one of the checked addresses
instead of the name: a second look-up could give another answer. After a redirect the next host is checked anew.

An address is public if it is on the allow list: IPv4 that is reachable everywhere, and IPv6 of 2000::/3 without the
blocks for tunnels, tests and documentation. `ipaddress.is_global` alone is not enough: depending on the Python
release, it is true for multicast, site-local and unassigned IPv6, for 6to4, and for the metadata addresses below. A
NAT64 prefix that a network has chosen among public addresses cannot be recognised.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

from infra.host_limits import translate_exhaustion

Address: TypeAlias = IPv4Address | IPv6Address
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Resolver: from a host name and a port to addresses, in the order of preference. Raises OSError."""

MAX_NAME_CHARS = 253
MAX_ADDRESSES = 4
LOOKUPS = 8
"""Name look-ups at a time. They have threads of their own: a slow name server of a hostile domain delays no other."""

_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII)

_NOT_PUBLIC_V4 = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments, among them metadata of a cloud (192.0.0.192)
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
)
_PUBLIC_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = (
    IPv6Network("2001::/23"),  # Teredo, benchmarks, other protocol assignments
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4: an IPv4 address behind a relay
    IPv6Network("3fff::/20"),  # documentation
)
_NAT64 = IPv6Network("64:ff9b::/96")
"""IPv4 addresses as hosts without IPv4 see them. The prefix for local use, 64:ff9b:1::/48, is not public."""
_METADATA: frozenset[Address] = frozenset(
    ip_address(text)
    for text in ("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254")
)
"""Services of clouds that give credentials to every program of the host; 168.63.129.16 looks public."""
_PRIVATE_V4 = tuple(
    IPv4Network(text) for text in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)
_PRIVATE_V6 = (IPv6Network("::1/128"), IPv6Network("fc00::/7"))


class InvalidHost(Exception):
    """Text that is neither a host name nor an address."""


class HostNotFound(Exception):
    """Host name without an address, or one that cannot be resolved now."""


class AddressNotAllowed(Exception):
    """Host with an address that is not public. The message does not contain addresses of names."""


class AddressGuard:
    """Resolver that returns only addresses to which users may connect.

    `private_hosts`: pairs of a host, as `read_host` returns it, and a port, whose addresses may be loopback or private.
    """

    def __init__(self, private_hosts: Collection[tuple[str, int]] = (), resolve: Resolve | None = None) -> None:
        self._private_hosts = frozenset(private_hosts)
        self._resolve = resolve or self._system

    async def addresses(self, host: str, port: int) -> Sequence[Address]:
        """Return 1 to MAX_ADDRESSES addresses of `host`, which is as `read_host` returns it.

        Raises AddressNotAllowed if any address of the answer is not allowed, HostNotFound, and HostExhausted.
        """
        literal = _literal(host)
        found = [literal] if literal else [_address(text) for text in await self._lookup(host, port)]
        addresses = list(dict.fromkeys(found))
        if not addresses:
            raise HostNotFound(f"the host '{host}' has no address")
        private = (host, port) in self._private_hosts
        for address in addresses:
            if address is None or not (is_public(address) or (private and is_private(address))):
                raise AddressNotAllowed(f"the host '{host}' has an address that is not public")
        return [address for address in addresses if address][:MAX_ADDRESSES]

    async def _lookup(self, host: str, port: int) -> Sequence[str]:
        try:
            with translate_exhaustion():
                return await self._resolve(host, port)
        except OSError as exc:
            reason = exc.strerror or type(exc).__name__
            raise HostNotFound(f"the name of the host '{host}' cannot be resolved: {reason}") from None

    async def _system(self, host: str, port: int) -> Sequence[str]:
        def look_up() -> list[str]:
            return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]

        return await asyncio.get_running_loop().run_in_executor(self._threads, look_up)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(LOOKUPS, thread_name_prefix="resolve")


def read_host(text: str) -> str:
    """Return the host of a URL, with or without brackets, in its one spelling. Raises InvalidHost.

    Names are in lower case and without a dot at the end; they must be ASCII already. IPv4 addresses are read as
    browsers and the C library do: one to four numbers, decimal, octal (`0177`) or hexadecimal (`0x7f`). IPv6 addresses
    have no zone.
    """
    if not text.isascii():
        raise InvalidHost("the host is not ASCII; names with other characters are written in their form `xn--…`")
    host = text.lower()
    if ":" in host or "[" in host:
        return _ipv6(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    host = host.removesuffix(".")
    labels = host.split(".")
    if len(host) > MAX_NAME_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidHost("the host is not a name of labels with 1 to 63 letters, digits, hyphens or underscores")
    # No top-level domain is a number, so such a host can only be meant as an address.
    return str(_ipv4(labels)) if _NUMBER.fullmatch(labels[-1]) else host


def is_public(address: Address) -> bool:
    """Return whether the address belongs to the public Internet, as the allow list of this module defines it."""
    if isinstance(address, IPv6Address):
        embedded = _embedded(address)
        if embedded is not None:
            return is_public(embedded)
        listed = address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)
        return listed and address.scope_id is None and address.is_global
    listed = not address.is_multicast and not any(address in network for network in _NOT_PUBLIC_V4)
    return listed and address.is_global and address not in _METADATA


def is_private(address: Address) -> bool:
    """Return whether the address is loopback or private, and no metadata service."""
    address = _unmapped(address)
    if address in _METADATA:
        return False
    if isinstance(address, IPv4Address):
        return any(address in network for network in _PRIVATE_V4)
    return address.scope_id is None and any(address in network for network in _PRIVATE_V6)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a connection to this IPv6 address reaches, or None."""
    if address.scope_id is None and address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped


def _unmapped(address: Address) -> Address:
    """Return an IPv4-mapped address as IPv4: as such it is connected to, and compared."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _address(text: str) -> Address | None:
    """Return an address of an answer, an IPv4-mapped one as IPv4; None if it cannot be used."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return None
    return _unmapped(address)


def _literal(host: str) -> Address | None:
    try:
        return _address(str(ip_address(host)))
    except ValueError:
        return None


def _ipv6(text: str) -> str:
    if "%" in text:
        raise InvalidHost("the address has a zone")
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise InvalidHost("the host is not an IPv6 address") from None
    return str(_unmapped(address))


def _ipv4(labels: Sequence[str]) -> IPv4Address:
    try:
        *first, last = (_number(label) for label in labels)
        if len(labels) > 4 or any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
            raise ValueError
    except ValueError:
        raise InvalidHost("the host ends in a number, but is not an IPv4 address") from None
    return IPv4Address(last + sum(number << 8 * (3 - place) for place, number in enumerate(first)))


def _number(text: str) -> int:
    """Return a part of an IPv4 address. Raises ValueError."""
    if not _NUMBER.fullmatch(text):
        raise ValueError
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)
