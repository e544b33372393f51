"""Settings of the gateway, read once. The error for a bad variable names the variable and never shows its value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from infra.settings import Env, SettingsError

_TCP_PORT = 6379

_TIMES = (
    "pool_timeout_s",
    "connect_timeout_s",
    "command_timeout_s",
    "idle_check_s",
    "heartbeat_s",
    "shutdown_timeout_s",
)


@dataclass(frozen=True)
class RedisTarget:
    """Address of Redis: either `path` (unix socket) or `host` and `port`."""

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    db: int = 0
    ca_file: str | None = None


@dataclass(frozen=True)
class GatewaySettings:
    """Settings of the gateway; `docs/gateway.md` explains each of them."""

    redis_url: str = field(repr=False)
    token: str = field(repr=False)
    readonly_token: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 8079
    max_connections: int = 10_000
    max_request_bytes: int = 10 * 1024 * 1024
    max_response_bytes: int = 10 * 1024 * 1024
    max_batch_commands: int = 10_000
    pool_size: int = 8
    pool_timeout_s: float = 5.0
    connect_timeout_s: float = 5.0
    command_timeout_s: float = 30.0
    idle_check_s: float = 30.0
    heartbeat_s: float = 15.0
    shutdown_timeout_s: float = 5.0
    subscriber_buffer_bytes: int = 4 * 1024 * 1024
    redis_ca_file: str | None = None

    def target(self) -> RedisTarget:
        """Return the address in `redis_url`. Raises `SettingsError` for an unusable URL."""
        return parse_target(self.redis_url, self.redis_ca_file)

    @classmethod
    def from_env(cls, env: Env) -> GatewaySettings:
        """Read the variables `GATEWAY_*`. Raises `SettingsError`."""
        settings = cls(
            redis_url=env.text("GATEWAY_REDIS_URL"),
            token=env.text("GATEWAY_TOKEN"),
            readonly_token=env.optional("GATEWAY_READONLY_TOKEN"),
            host=env.text("GATEWAY_HOST", cls.host),
            port=env.integer("GATEWAY_PORT", cls.port, low=0, high=65535),
            max_connections=env.integer("GATEWAY_MAX_CONNECTIONS", cls.max_connections, low=8, high=1_000_000),
            max_request_bytes=env.integer("GATEWAY_MAX_REQUEST_BYTES", cls.max_request_bytes, low=1, high=1 << 30),
            max_response_bytes=env.integer("GATEWAY_MAX_RESPONSE_BYTES", cls.max_response_bytes, low=1, high=1 << 30),
            max_batch_commands=env.integer("GATEWAY_MAX_BATCH_COMMANDS", cls.max_batch_commands, low=1, high=1_000_000),
            pool_size=env.integer("GATEWAY_POOL_SIZE", cls.pool_size, low=1, high=1000),
            subscriber_buffer_bytes=env.integer(
                "GATEWAY_SUBSCRIBER_BUFFER_BYTES", cls.subscriber_buffer_bytes, low=1, high=1 << 30
            ),
            redis_ca_file=env.optional("GATEWAY_REDIS_CA_FILE"),
            **{name: env.number(f"GATEWAY_{name.upper()}", getattr(cls, name), low=0.01, high=3600) for name in _TIMES},
        )
        if settings.token == settings.readonly_token:
            raise SettingsError("GATEWAY_READONLY_TOKEN must differ from GATEWAY_TOKEN")
        if settings.redis_ca_file is not None and not Path(settings.redis_ca_file).is_file():
            raise SettingsError("GATEWAY_REDIS_CA_FILE is not the path of a file")
        settings.target()
        return settings


def parse_target(url: str, ca_file: str | None = None) -> RedisTarget:
    """Parse a URL: `redis://[user:password@]host[:port][/db]`, `rediss://…` or `unix://[user:password@]/path[?db=n]`.

    Raises `SettingsError`, without showing the URL, because it may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise SettingsError("GATEWAY_REDIS_URL is not a URL") from exc
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix":
        if not parts.path or parts.hostname:
            raise SettingsError("GATEWAY_REDIS_URL needs an absolute path after unix://, as in unix:///run/redis.sock")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        db = _db(options.pop("db", ""))
        if options:
            raise SettingsError("GATEWAY_REDIS_URL takes no option but db")
        return RedisTarget(path=unquote(parts.path), user=user, password=password, db=db)
    if parts.scheme not in ("redis", "rediss"):
        raise SettingsError("GATEWAY_REDIS_URL must start with redis://, rediss:// or unix://")
    if not parts.hostname:
        raise SettingsError("GATEWAY_REDIS_URL names no host")
    # An unescaped ? or # in the password ends the URL's path early, so that the error has to mention both.
    if parts.query or parts.fragment:
        raise SettingsError("GATEWAY_REDIS_URL takes no options; percent-encode ? and # in the password")
    return RedisTarget(
        host=parts.hostname,
        port=port or _TCP_PORT,
        tls=parts.scheme == "rediss",
        user=user,
        password=password,
        db=_db(parts.path.removeprefix("/")),
        ca_file=ca_file,
    )


def _db(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise SettingsError("GATEWAY_REDIS_URL must name the database by its number")
    return int(text or 0)
