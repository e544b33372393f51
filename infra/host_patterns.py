"""Lists of hosts in settings: patterns of names with ports, and single hosts whose addresses may be private."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from infra.address_guard import InvalidHost, read_host
from infra.settings import Env, SettingsError

Entry = TypeVar("Entry")

MAX_HOSTS = 1000
"""Entries of a list."""

_ENTRY = re.compile(r"(?P<any>\*\.|)(?P<host>\*|[^:\[\]*]+|\[[^\[\]]+\])(?::(?P<port>\d{1,5}))?", re.ASCII)
_DEFAULT_PORTS = (80, 443)


@dataclass(frozen=True)
class HostPattern:
    """Hosts of an entry: `host`, all hosts below it (`subdomains`), or all (`host` is None); `ports` of them."""

    host: str | None
    subdomains: bool = False
    ports: Sequence[int] = _DEFAULT_PORTS

    @classmethod
    def parse(cls, entry: str) -> "HostPattern":
        """Return the pattern of an entry: a host, `*.host` or `*`, with a port or without. Raises InvalidHost."""
        found = _ENTRY.fullmatch(entry)
        if found is None or found["any"] + found["host"] == "*.*":
            raise InvalidHost("allowed are '*', 'example.org' and '*.example.org', each with a port or without")
        ports = [_port(found["port"])] if found["port"] else _DEFAULT_PORTS
        host = None if found["host"] == "*" else read_host(found["host"])
        return cls(host, subdomains=bool(found["any"]), ports=ports)

    @property
    def entries(self) -> list[str]:
        """Entries `host:port` that mean the same, one for each port."""
        host = "*" if self.host is None else f"*.{self.host}" if self.subdomains else self.host
        return [host_port(host, port) for port in self.ports]

    def matches(self, host: str, port: int) -> bool:
        """Return whether a host, as `read_host` returns it, and a port belong to the pattern."""
        if port not in self.ports:
            return False
        return self.host is None or (host.endswith(f".{self.host}") if self.subdomains else host == self.host)

    def covers(self, other: "HostPattern") -> bool:
        """Return whether all hosts and ports of another pattern belong to this one."""
        if not set(other.ports) <= set(self.ports):
            return False
        if self.host is None or other.host is None:
            return self.host is None
        if self.subdomains:
            return other.host.endswith(f".{self.host}") or (other.subdomains and other.host == self.host)
        return not other.subdomains and other.host == self.host


def read_patterns(env: Env, name: str) -> list[HostPattern]:
    """Return the patterns in a variable, separated by commas. Raises SettingsError."""
    return [_read(name, entry, HostPattern.parse) for entry in _entries(env, name)]


def read_private_hosts(env: Env, name: str) -> frozenset[tuple[str, int]]:
    """Return the pairs of host and port in a variable, separated by commas. Raises SettingsError."""
    return frozenset(_read(name, entry, _private_host) for entry in _entries(env, name))


def host_port(host: str, port: int) -> str:
    """Return a host and a port as text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _entries(env: Env, name: str) -> list[str]:
    entries = [entry for part in (env.optional(name) or "").split(",") if (entry := part.strip())]
    if len(entries) > MAX_HOSTS:
        raise SettingsError(f"{name} may have at most {MAX_HOSTS} entries")
    return entries


def _read(name: str, entry: str, read: Callable[[str], Entry]) -> Entry:
    try:
        return read(entry)
    except InvalidHost as exc:
        raise SettingsError(f"{name} has the entry '{entry}'; {exc}") from None


def _private_host(entry: str) -> tuple[str, int]:
    found = _ENTRY.fullmatch(entry)
    if found is None or found["any"] or found["host"] == "*" or not found["port"]:
        raise InvalidHost("allowed are a host and a port: 'intranet:8080'")
    return read_host(found["host"]), _port(found["port"])


def _port(text: str) -> int:
    if not 0 < int(text) < 65536:
        raise InvalidHost("a port is between 1 and 65535")
    return int(text)
