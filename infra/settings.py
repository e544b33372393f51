"""Settings read from the environment once, at a composition root: frozen dataclasses and one-line errors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from infra.contract.keys import Keys

_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


class SettingsError(Exception):
    """Missing or invalid variable. The message is one line, names the variable, and never contains a secret."""


class Env:
    """Typed access to environment variables. Every method may raise SettingsError."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def optional(self, name: str) -> str | None:
        """Return the variable, or None if it is unset or blank."""
        return self._variables.get(name, "").strip() or None

    def text(self, name: str, default: str | None = None) -> str:
        """Return the variable or the default. Raises SettingsError if there is neither."""
        value = self.optional(name) or default
        if value is None:
            raise SettingsError(f"{name} is not set")
        return value

    def url(self, name: str, *schemes: str, default: str | None = None) -> str:
        """Return an absolute URL with one of the schemes, an HTTP URL without its trailing slashes."""
        value = self.text(name, default)
        try:
            parts = urlsplit(value)
            _ = parts.port
        except ValueError:
            raise SettingsError(f"{name} is not a URL") from None
        if parts.scheme not in schemes or not (parts.netloc or parts.scheme == "unix"):
            raise SettingsError(f"{name} must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)}")
        return value.rstrip("/") if parts.scheme in {"http", "https"} else value

    def base_url(self, name: str, *schemes: str, default: str | None = None) -> str:
        """Return a URL to which paths are added."""
        url = self.url(name, *schemes, default=default)
        if set(url) & set("@?#") or not url.isprintable() or " " in url:
            raise SettingsError(f"{name} must have no user, query, fragment or white space")
        return url

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        """Return an integer within the bounds, which are inclusive."""
        return int(self._number(name, default, int, low, high))

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        """Return a number within the bounds, which are inclusive."""
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


def is_origin(text: str) -> bool:
    """Return whether a text is the origin of a page, as browsers send it."""
    found = _ORIGIN.fullmatch(text)
    # Browsers omit the default port of the scheme, so an origin with it would never match.
    return found is not None and found.group(1, 3) not in {("http", ":80"), ("https", ":443")}


UPLOAD_CHECKSUMS = ("sha256", "md5")


@dataclass(frozen=True)
class StoreSettings:
    """Settings that the API and the workers must share: key names, and the retention of finished runs."""

    keys: Keys
    retention_s: int

    @classmethod
    def from_env(cls, env: Env) -> "StoreSettings":
        """Read `REDIS_KEY_PREFIX RETENTION_DAYS`; the days may be a fraction."""
        days = env.number("RETENTION_DAYS", 30.0, low=0.001, high=3650.0)
        return cls(keys=Keys(env.optional("REDIS_KEY_PREFIX") or ""), retention_s=int(days * 24 * 3600))


@dataclass(frozen=True)
class S3Settings:
    """Bucket of the workspaces. `endpoint_url` None: the AWS endpoint of the region.

    `upload_checksum`: checksum, `sha256` or `md5`, with which the store checks the input files that clients upload.
    """

    bucket: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    endpoint_url: str | None = None
    upload_checksum: str = "sha256"

    @classmethod
    def from_env(cls, env: Env) -> "S3Settings":
        """Read `S3_BUCKET S3_REGION S3_ACCESS_KEY S3_SECRET_KEY S3_ENDPOINT_URL S3_UPLOAD_CHECKSUM`."""
        upload_checksum = env.text("S3_UPLOAD_CHECKSUM", cls.upload_checksum)
        if upload_checksum not in UPLOAD_CHECKSUMS:
            allowed = " or ".join(UPLOAD_CHECKSUMS)
            raise SettingsError(f"S3_UPLOAD_CHECKSUM must be {allowed}, not '{upload_checksum}'")
        # Links to files begin with it, so a password in it would reach every user.
        endpoint_url = env.base_url("S3_ENDPOINT_URL", "http", "https", default="https://sos-ch-gva-2.exo.io")
        return cls(
            bucket=env.text("S3_BUCKET", "swissbrain-workspaces"),
            region=env.text("S3_REGION", "ch-gva-2"),
            access_key=env.text("S3_ACCESS_KEY"),
            secret_key=env.text("S3_SECRET_KEY"),
            endpoint_url=endpoint_url,
            upload_checksum=upload_checksum,
        )


@dataclass(frozen=True)
class RedisRestSettings:
    """Upstash REST endpoint, through which the API reaches Redis. `timeout_s` limits each call."""

    url: str
    token: str = field(repr=False)
    timeout_s: float = 10.0

    @classmethod
    def from_env(cls, env: Env) -> "RedisRestSettings":
        """Read `UPSTASH_REDIS_REST_URL UPSTASH_REDIS_REST_TOKEN UPSTASH_REDIS_REST_TIMEOUT_S`."""
        return cls(
            url=env.base_url("UPSTASH_REDIS_REST_URL", "https", "http"),
            token=_token(env, "UPSTASH_REDIS_REST_TOKEN"),
            timeout_s=env.number("UPSTASH_REDIS_REST_TIMEOUT_S", 10.0, low=0.1, high=60.0),
        )


@dataclass(frozen=True)
class RedisTcpSettings:
    """TCP endpoint, through which the worker reaches Redis. The URL is hidden in `repr`: it may contain a password."""

    url: str = field(repr=False)
    timeout_s: float = 10.0

    @classmethod
    def from_env(cls, env: Env) -> "RedisTcpSettings":
        """Read `REDIS_URL REDIS_TIMEOUT_S`."""
        return cls(
            url=env.url("REDIS_URL", "rediss", "redis", "unix"),
            timeout_s=env.number("REDIS_TIMEOUT_S", 10.0, low=0.1, high=60.0),
        )


@dataclass(frozen=True)
class QStashAccess:
    """Access to QStash, and the URL at which it reaches the API: all that a publisher needs."""

    url: str
    public_url: str
    token: str = field(repr=False)

    @classmethod
    def for_publishing(cls, env: Env) -> "QStashAccess | None":
        """Read `QSTASH_URL QSTASH_TOKEN EDGE_PUBLIC_URL`. None without a token."""
        if env.optional("QSTASH_TOKEN") is None:
            return None
        if env.optional("EDGE_PUBLIC_URL") is None:
            raise SettingsError("EDGE_PUBLIC_URL is not set, but QSTASH_TOKEN is")
        return cls(
            url=env.base_url("QSTASH_URL", "https", "http", default="https://qstash.upstash.io"),
            public_url=env.base_url("EDGE_PUBLIC_URL", "https", "http"),
            token=_token(env, "QSTASH_TOKEN"),
        )


@dataclass(frozen=True)
class QStashSettings(QStashAccess):
    """Access to QStash with the keys with which it signs its calls."""

    current_signing_key: str = field(repr=False)
    next_signing_key: str = field(repr=False)

    @classmethod
    def from_env(cls, env: Env) -> "QStashSettings | None":
        """Read `QSTASH_URL QSTASH_TOKEN QSTASH_CURRENT_SIGNING_KEY QSTASH_NEXT_SIGNING_KEY EDGE_PUBLIC_URL`.

        None without a token: there are no schedules then.
        """
        if env.optional("QSTASH_TOKEN") is None:
            return None
        needed = ("QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY", "EDGE_PUBLIC_URL")
        if missing := [name for name in needed if env.optional(name) is None]:
            raise SettingsError(f"{missing[0]} is not set, but QSTASH_TOKEN is")
        return cls(
            url=env.base_url("QSTASH_URL", "https", "http", default="https://qstash.upstash.io"),
            public_url=env.base_url("EDGE_PUBLIC_URL", "https", "http"),
            token=_token(env, "QSTASH_TOKEN"),
            current_signing_key=env.text("QSTASH_CURRENT_SIGNING_KEY"),
            next_signing_key=env.text("QSTASH_NEXT_SIGNING_KEY"),
        )


def _token(env: Env, name: str) -> str:
    """Return a text that becomes part of a header."""
    token = env.text(name)
    if not (token.isascii() and token.isprintable()):
        raise SettingsError(f"{name} must hold visible ASCII characters alone")
    return token
