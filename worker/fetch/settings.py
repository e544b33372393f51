"""Settings of `http_fetch`: hosts that may be fetched from, and the size of answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from infra.host_patterns import HostPattern, read_patterns, read_private_hosts
from infra.settings import Env

HOSTS = "HTTP_FETCH_HOSTS"
PRIVATE_HOSTS = "HTTP_FETCH_PRIVATE_HOSTS"
MAX_BYTES = "HTTP_FETCH_MAX_BYTES"


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
            hosts=read_patterns(env, HOSTS),
            private_hosts=read_private_hosts(env, PRIVATE_HOSTS),
            max_bytes=env.integer(MAX_BYTES, cls.max_bytes, low=1024, high=100 * 1024 * 1024),
        )
