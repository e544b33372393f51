"""Settings of the stand-in, read once at its start."""

from dataclasses import dataclass, field

from infra.settings import Env, RedisTcpSettings, SettingsError

MIN_TOKEN_CHARS = 16
MIN_KEY_CHARS = 32


@dataclass(frozen=True)
class QStashLocalSettings:
    """Settings of the stand-in.

    `token`: bearer token of publishers. The current key signs all deliveries; the next one replaces it at a rotation.
    `time_scale` shortens the delays between attempts, for tests.
    """

    redis: RedisTcpSettings
    token: str = field(repr=False)
    current_signing_key: str = field(repr=False)
    next_signing_key: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 8080
    max_connections: int = 1000
    max_messages: int = 100_000
    max_schedules: int = 10_000
    max_body_bytes: int = 1024 * 1024
    concurrency: int = 64
    concurrency_per_host: int = 32
    time_scale: float = 1.0

    @classmethod
    def from_env(cls, env: Env) -> "QStashLocalSettings":
        """Read `QSTASH_TOKEN QSTASH_CURRENT_SIGNING_KEY QSTASH_NEXT_SIGNING_KEY QSTASH_LOCAL_*`."""
        settings = cls(
            redis=RedisTcpSettings(url=env.url("QSTASH_LOCAL_REDIS_URL", "rediss", "redis", "unix")),
            token=_secret(env, "QSTASH_TOKEN", MIN_TOKEN_CHARS),
            current_signing_key=_secret(env, "QSTASH_CURRENT_SIGNING_KEY", MIN_KEY_CHARS),
            next_signing_key=_secret(env, "QSTASH_NEXT_SIGNING_KEY", MIN_KEY_CHARS),
            host=env.text("QSTASH_LOCAL_HOST", cls.host),
            port=env.integer("QSTASH_LOCAL_PORT", cls.port, low=0, high=65535),
            max_messages=env.integer("QSTASH_LOCAL_MAX_MESSAGES", cls.max_messages, low=1, high=10_000_000),
            concurrency=env.integer("QSTASH_LOCAL_CONCURRENCY", cls.concurrency, low=1, high=1000),
            concurrency_per_host=env.integer(
                "QSTASH_LOCAL_CONCURRENCY_PER_HOST", cls.concurrency_per_host, low=1, high=1000
            ),
            time_scale=env.number("QSTASH_LOCAL_TIME_SCALE", cls.time_scale, low=0.0, high=1.0),
        )
        if settings.current_signing_key == settings.next_signing_key:
            raise SettingsError("QSTASH_NEXT_SIGNING_KEY must differ from QSTASH_CURRENT_SIGNING_KEY")
        return settings


def _secret(env: Env, name: str, min_chars: int) -> str:
    value = env.text(name)
    if len(value) < min_chars:
        raise SettingsError(f"{name} must have at least {min_chars} characters")
    return value
