"""Settings of the network for programs, read by workers and by the proxy of a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from infra.address_guard import InvalidHost
from infra.host_patterns import HostPattern, read_patterns, read_private_hosts
from infra.settings import Env, SettingsError

ALLOW = "TOOLS_NETWORK_ALLOW"
PRIVATE_HOSTS = "TOOLS_NETWORK_PRIVATE_HOSTS"
MAX_BYTES = "TOOLS_NETWORK_MAX_BYTES"
TOKEN_KEY = "EGRESS_TOKEN_KEY"  # noqa: S105
MIN_KEY_CHARS = 32


@dataclass(frozen=True)
class NetworkSettings:
    """Policy of the operator for programs; by default no host is allowed.

    `private_hosts`: pairs of a host and a port that are allowed too, and whose addresses may be private. `max_bytes`:
    limit for the bytes of one call, both directions together.
    """

    allow: Sequence[HostPattern] = ()
    private_hosts: frozenset[tuple[str, int]] = frozenset()
    max_bytes: int = 1024 * 1024 * 1024

    @property
    def allows_any(self) -> bool:
        """Return whether any host may be reached."""
        return bool(self.allow or self.private_hosts)

    @property
    def entries(self) -> list[str]:
        """Entries `host:port` of everything that is allowed, sorted."""
        allowed = [entry for pattern in self.allow for entry in pattern.entries]
        private = [HostPattern(host, ports=[port]).entries[0] for host, port in self.private_hosts]
        return sorted({*allowed, *private})

    def permitted(self, entry: str) -> str | None:
        """Return an entry of a call in its one spelling; None if it is not within the policy. Raises InvalidHost."""
        pattern = HostPattern.parse(entry)
        if pattern.host is None or len(pattern.ports) != 1:
            raise InvalidHost("a call names its hosts, each with a port")
        is_private = not pattern.subdomains and (pattern.host, pattern.ports[0]) in self.private_hosts
        within = is_private or any(allowed.covers(pattern) for allowed in self.allow)
        return pattern.entries[0] if within else None

    @classmethod
    def from_env(cls, env: Env) -> "NetworkSettings":
        """Read `TOOLS_NETWORK_ALLOW TOOLS_NETWORK_PRIVATE_HOSTS TOOLS_NETWORK_MAX_BYTES`. Raises SettingsError."""
        return cls(
            allow=read_patterns(env, ALLOW),
            private_hosts=read_private_hosts(env, PRIVATE_HOSTS),
            max_bytes=_max_bytes(env),
        )


@dataclass(frozen=True)
class EgressSettings:
    """Settings of the proxy of a cluster. `token_key` is the key that the workers sign tokens with."""

    token_key: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 3128
    private_hosts: frozenset[tuple[str, int]] = frozenset()
    max_bytes: int = NetworkSettings.max_bytes

    @classmethod
    def from_env(cls, env: Env) -> "EgressSettings":
        """Read `EGRESS_TOKEN_KEY EGRESS_HOST EGRESS_PORT TOOLS_NETWORK_PRIVATE_HOSTS TOOLS_NETWORK_MAX_BYTES`.

        Raises SettingsError.
        """
        return cls(
            token_key=token_key(env),
            host=env.text("EGRESS_HOST", cls.host),
            port=env.integer("EGRESS_PORT", cls.port, low=0, high=65535),
            private_hosts=read_private_hosts(env, PRIVATE_HOSTS),
            max_bytes=_max_bytes(env),
        )


def token_key(env: Env) -> str:
    """Return the key of the tokens, `EGRESS_TOKEN_KEY`. Raises SettingsError."""
    key = env.text(TOKEN_KEY)
    if len(key) < MIN_KEY_CHARS:
        raise SettingsError(
            f"{TOKEN_KEY} must have at least {MIN_KEY_CHARS} characters, such as 'openssl rand -hex 32'"
        )
    return key


def _max_bytes(env: Env) -> int:
    return env.integer(MAX_BYTES, NetworkSettings.max_bytes, low=1024, high=1024**4)
