"""Reading settings from the environment, once, at a composition root: frozen dataclasses, clear one-line errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from infra.contract.keys import Keys


class SettingsError(Exception):
    """A variable is missing or bad; the message is one line that names it and never shows a secret's value."""


class Env:
    """Typed access to environment variables. Every method raises SettingsError, naming the variable."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def optional(self, name: str) -> str | None:
        """The variable, or None if it is unset or blank."""
        return self._variables.get(name, "").strip() or None

    def text(self, name: str, default: str | None = None) -> str:
        """The variable, or the default; without a default it must be set."""
        value = self.optional(name) or default
        if value is None:
            raise SettingsError(f"{name} is not set")
        return value

    def url(self, name: str, *schemes: str, default: str | None = None) -> str:
        """An absolute URL of one of the schemes."""
        value = self.text(name, default)
        try:
            parts = urlsplit(value)
        except ValueError:
            raise SettingsError(f"{name} is not a URL") from None
        if parts.scheme not in schemes or not (parts.netloc or parts.scheme == "unix"):
            raise SettingsError(f"{name} must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)}")
        return value.rstrip("/") if parts.scheme in {"http", "https"} else value

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        """A whole number within bounds."""
        return int(self._number(name, default, int, low, high))

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        """A number within bounds."""
        return float(self._number(name, default, float, low, high))

    def _number(self, name: str, default: float, kind: type[int] | type[float], low: float, high: float) -> float:
        text = self.optional(name)
        try:
            value = default if text is None else kind(text)
        except ValueError:
            raise SettingsError(f"{name} must be a number, not '{text}'") from None
        if not low <= value <= high:
            raise SettingsError(f"{name} must be between {low} and {high}, not {text}")
        return value


@dataclass(frozen=True)
class StoreSettings:
    """What the API and the workers must agree on: the names of the keys, and how long a finished run is kept."""

    keys: Keys
    retention_s: int

    @classmethod
    def from_env(cls, env: Env) -> "StoreSettings":
        """From `REDIS_KEY_PREFIX RETENTION_DAYS`; a day may be a fraction of one."""
        days = env.number("RETENTION_DAYS", 30.0, low=0.001, high=3650.0)
        return cls(keys=Keys(env.optional("REDIS_KEY_PREFIX") or ""), retention_s=int(days * 24 * 3600))


@dataclass(frozen=True)
class S3Settings:
    """Where the workspaces are kept. `endpoint_url` None means AWS's own endpoint."""

    bucket: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    endpoint_url: str | None = None

    @classmethod
    def from_env(cls, env: Env) -> "S3Settings":
        """From `S3_BUCKET S3_REGION S3_ACCESS_KEY S3_SECRET_KEY S3_ENDPOINT_URL`."""
        return cls(
            bucket=env.text("S3_BUCKET", "swissbrain-workspaces"),
            region=env.text("S3_REGION", "ch-gva-2"),
            access_key=env.text("S3_ACCESS_KEY"),
            secret_key=env.text("S3_SECRET_KEY"),
            endpoint_url=env.url("S3_ENDPOINT_URL", "http", "https", default="https://sos-ch-gva-2.exo.io"),
        )


@dataclass(frozen=True)
class RedisRestSettings:
    """The Upstash REST endpoint, the edge's only way to Redis. `timeout_s` bounds each call."""

    url: str
    token: str = field(repr=False)
    timeout_s: float = 10.0

    @classmethod
    def from_env(cls, env: Env) -> "RedisRestSettings":
        """From `UPSTASH_REDIS_REST_URL UPSTASH_REDIS_REST_TOKEN UPSTASH_REDIS_REST_TIMEOUT_S`."""
        return cls(
            url=env.url("UPSTASH_REDIS_REST_URL", "https", "http"),
            token=env.text("UPSTASH_REDIS_REST_TOKEN"),
            timeout_s=env.number("UPSTASH_REDIS_REST_TIMEOUT_S", 10.0, low=0.1, high=60.0),
        )


@dataclass(frozen=True)
class RedisTcpSettings:
    """The TCP endpoint, the worker's only way to Redis; the URL may hold a password, so it is never shown."""

    url: str = field(repr=False)
    timeout_s: float = 10.0

    @classmethod
    def from_env(cls, env: Env) -> "RedisTcpSettings":
        """From `REDIS_URL REDIS_TIMEOUT_S`."""
        return cls(
            url=env.url("REDIS_URL", "rediss", "redis", "unix"),
            timeout_s=env.number("REDIS_TIMEOUT_S", 10.0, low=0.1, high=60.0),
        )
