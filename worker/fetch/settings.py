"""Settings of `http_fetch`: hosts that may be fetched from, and the size of answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from infra.address_guard import InvalidHost, read_host
from infra.settings import Env, SettingsError

HOSTS = "HTTP_FETCH_HOSTS"
PRIVATE_HOSTS = "HTTP_FETCH_PRIVATE_HOSTS"
MAX_BYTES = "HTTP_FETCH_MAX_BYTES"
MAX_HOSTS = 1000

_ENTRY = re.compile(r"(?P<any>\*\.|)(?P<host>\*|[^:\[\]*]+|\[[^\[\]]+\])(?::(?P<port>\d{1,5}))?", re.ASCII)
_DEFAULT_PORTS = (80, 443)


@dataclass(frozen=True)
class HostPattern:
    """Hosts of an entry: `host`, all hosts below it (`subdomains`), or all (`host` is None); `ports` of them."""

    host: str | None
    subdomains: bool = False
    ports: Sequence[int] = _DEFAULT_PORTS

    def matches(self, host: str, port: int) -> bool:
        """Return whether a host, as `read_host` returns it, and a port belong to the pattern."""
        if port not in self.ports:
            return False
        return self.host is None or (host.endswith(f".{self.host}") if self.subdomains else host == self.host)


@dataclass(frozen=True)
class FetchSettings:
    """Settings of `http_fetch`; by default no host is allowed.

    `private_hosts`: pairs of a host and a port that are allowed too, and whose addresses may be private. `max_bytes`:
    limit for the body of an answer, uncompressed.
    """

    hosts: Sequence[HostPattern] = ()
    private_hosts: frozenset[tuple[str, int]] = frozenset()
    max_bytes: int = 10 * 1024 * 1024

    @property
    def allows_any(self) -> bool:
        """Return whether any host may be fetched from."""
        return bool(self.hosts or self.private_hosts)

    def allows(self, host: str, port: int) -> bool:
        """Return whether a host, as `read_host` returns it, may be fetched from on a port."""
        return (host, port) in self.private_hosts or any(pattern.matches(host, port) for pattern in self.hosts)

    @classmethod
    def from_env(cls, env: Env) -> "FetchSettings":
        """Read `HTTP_FETCH_HOSTS HTTP_FETCH_PRIVATE_HOSTS HTTP_FETCH_MAX_BYTES`. Raises SettingsError."""
        return cls(
            hosts=[_pattern(entry) for entry in _entries(env, HOSTS)],
            private_hosts=frozenset(_private_host(entry) for entry in _entries(env, PRIVATE_HOSTS)),
            max_bytes=env.integer(MAX_BYTES, cls.max_bytes, low=1024, high=100 * 1024 * 1024),
        )


def _entries(env: Env, name: str) -> list[str]:
    entries = [entry for part in (env.optional(name) or "").split(",") if (entry := part.strip())]
    if len(entries) > MAX_HOSTS:
        raise SettingsError(f"{name} may have at most {MAX_HOSTS} entries")
    return entries


def _pattern(entry: str) -> HostPattern:
    found = _ENTRY.fullmatch(entry)
    allowed = "allowed are '*', 'example.org' and '*.example.org', each with a port or without"
    if found is None or found["any"] + found["host"] == "*.*":
        raise SettingsError(f"{HOSTS} has the entry '{entry}'; {allowed}")
    ports = [_port(HOSTS, entry, found["port"])] if found["port"] else _DEFAULT_PORTS
    if found["host"] == "*":
        return HostPattern(None, ports=ports)
    return HostPattern(_host(HOSTS, entry, found["host"]), subdomains=bool(found["any"]), ports=ports)


def _private_host(entry: str) -> tuple[str, int]:
    found = _ENTRY.fullmatch(entry)
    if found is None or found["any"] or found["host"] == "*" or not found["port"]:
        raise SettingsError(f"{PRIVATE_HOSTS} has the entry '{entry}'; allowed are a host and a port: 'intranet:8080'")
    return _host(PRIVATE_HOSTS, entry, found["host"]), _port(PRIVATE_HOSTS, entry, found["port"])


def _host(name: str, entry: str, text: str) -> str:
    try:
        return read_host(text)
    except InvalidHost as exc:
        raise SettingsError(f"{name} has the entry '{entry}': {exc}") from None


def _port(name: str, entry: str, text: str) -> int:
    if not 0 < int(text) < 65536:
        raise SettingsError(f"{name} has the entry '{entry}'; a port is between 1 and 65535")
    return int(text)
