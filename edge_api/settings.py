"""Settings of the edge, read once at its composition root. An error is one line that names the variable."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from infra.settings import Env, QStashSettings, RedisRestSettings, S3Settings, SettingsError, StoreSettings, is_origin

READ_RUNS = "runs:read"
WRITE_RUNS = "runs:write"
APPROVE_RUNS = "runs:approve"
SCOPES = frozenset({READ_RUNS, WRITE_RUNS, APPROVE_RUNS})
LOG_MODES = ("stream", "longpoll")

_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_EMF_NAMESPACE = re.compile(r"[A-Za-z0-9._/#:-]{1,255}")
_SIGNING_KEY = re.compile(r"[!-~]{32,}")


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Static API key: user, scopes, and the SHA-256 (hex) of the token. The token itself is stored nowhere."""

    # The user id becomes part of Redis keys and of object keys, so it has only characters that need no quoting in both.
    # `\Z`, because `$` would allow a line feed at the end.
    user: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_@.-]{0,63}\Z")]
    scopes: Annotated[list[str], msgspec.Meta(min_length=1)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


@dataclass(frozen=True)
class ApiSettings:
    """Settings of the application. `stream_hold_s` 0: a log stream has no time limit.

    `cors_origins`: origins of the pages that may call the API, `*` for all. `stream_token_keys`: the first key signs,
    every key verifies; without keys there are no stream tokens. `base_path`: path before all paths of the API, as a
    custom domain or a proxy adds it; requests without it are served as well. `emf_namespace`: namespace of the lines
    with metrics for CloudWatch; empty: there are none.
    """

    log_mode: str = "stream"
    stream_hold_s: float = 3600.0
    stream_ping_s: float = 15.0
    stream_stall_s: float = 30.0
    longpoll_wait_s: float = 20.0
    presign_expiry_s: int = 300
    max_body_bytes: int = 1024 * 1024
    cors_origins: tuple[str, ...] = ()
    stream_token_keys: tuple[str, ...] = field(default=(), repr=False)
    base_path: str = ""
    emf_namespace: str = ""

    @classmethod
    def from_env(cls, env: Env) -> "ApiSettings":
        """Read `EDGE_LOG_MODE EDGE_STREAM_HOLD_S EDGE_STREAM_PING_S EDGE_STREAM_STALL_S EDGE_LONGPOLL_WAIT_S
        EDGE_PRESIGN_EXPIRY_S EDGE_CORS_ORIGINS EDGE_STREAM_TOKEN_KEY[_FILE] EDGE_BASE_PATH
        EDGE_EMF_NAMESPACE`.
        """
        log_mode = env.text("EDGE_LOG_MODE", cls.log_mode)
        if log_mode not in LOG_MODES:
            raise SettingsError(f"EDGE_LOG_MODE must be one of {', '.join(LOG_MODES)}, not '{log_mode}'")
        return cls(
            log_mode=log_mode,
            stream_hold_s=env.number("EDGE_STREAM_HOLD_S", cls.stream_hold_s, low=0, high=7 * 24 * 3600),
            stream_ping_s=env.number("EDGE_STREAM_PING_S", cls.stream_ping_s, low=0.05, high=60),
            stream_stall_s=env.number("EDGE_STREAM_STALL_S", cls.stream_stall_s, low=0.05, high=600),
            longpoll_wait_s=env.number("EDGE_LONGPOLL_WAIT_S", cls.longpoll_wait_s, low=0.1, high=40),
            presign_expiry_s=env.integer("EDGE_PRESIGN_EXPIRY_S", cls.presign_expiry_s, low=1, high=7 * 24 * 3600),
            cors_origins=_cors_origins(env),
            stream_token_keys=_signing_keys(env, "EDGE_STREAM_TOKEN_KEY"),
            base_path=_base_path(env),
            emf_namespace=_emf_namespace(env),
        )


@dataclass(frozen=True)
class EdgeSettings:
    """Settings of the API with its adapters. Without `qstash` there are no schedules and no webhooks.

    `webhook_keys`: the first key makes the secrets of users, every key signs; without keys there are no webhooks.
    `webhook_private_hosts`: pairs of a host and a port that webhooks may call over http, and at private addresses.
    """

    redis: RedisRestSettings
    s3: S3Settings
    api: ApiSettings
    api_keys: tuple[ApiKey, ...] = field(repr=False)
    store: StoreSettings
    qstash: QStashSettings | None
    webhook_keys: tuple[str, ...] = field(default=(), repr=False)
    webhook_private_hosts: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def from_env(cls, env: Env) -> "EdgeSettings":
        """Read the variables of the parts, and `SWISSBRAIN_API_KEYS[_FILE]`, `EDGE_WEBHOOK_KEY[_FILE]` and
        `EDGE_WEBHOOK_PRIVATE_HOSTS`."""
        return cls(
            redis=RedisRestSettings.from_env(env),
            s3=S3Settings.from_env(env),
            api=ApiSettings.from_env(env),
            api_keys=_api_keys(env),
            store=StoreSettings.from_env(env),
            qstash=QStashSettings.from_env(env),
            webhook_keys=_signing_keys(env, "EDGE_WEBHOOK_KEY"),
            webhook_private_hosts=_webhook_private_hosts(env),
        )


@dataclass(frozen=True)
class ServerSettings:
    """Address on which the server listens when the edge runs under uvicorn, and its number of connections."""

    host: str
    port: int
    max_connections: int = 10_000

    @classmethod
    def from_env(cls, env: Env) -> "ServerSettings":
        """Read `EDGE_HOST EDGE_PORT EDGE_MAX_CONNECTIONS`."""
        return cls(
            host=env.text("EDGE_HOST", "127.0.0.1"),
            port=env.integer("EDGE_PORT", 8787, low=0, high=65535),
            max_connections=env.integer("EDGE_MAX_CONNECTIONS", cls.max_connections, low=8, high=1_000_000),
        )


def _api_keys(env: Env) -> tuple[ApiKey, ...]:
    name, text = _text_or_file(env, "SWISSBRAIN_API_KEYS")
    if text is None:
        raise SettingsError(f"{name} is not set")
    try:
        keys = msgspec.json.decode(text, type=list[ApiKey])
    except (msgspec.DecodeError, ValueError) as exc:
        raise SettingsError(f"{name} must hold a JSON list of keys: {exc}") from None
    if not keys:
        raise SettingsError(f"{name} holds no key")
    for key in keys:
        if unknown := sorted(set(key.scopes) - SCOPES):
            raise SettingsError(f"{name} gives '{key.user}' the unknown scope '{unknown[0]}'")
    if len({key.sha256 for key in keys}) < len(keys):
        raise SettingsError(f"{name} holds the same key twice")
    return tuple(keys)


def _signing_keys(env: Env, variable: str) -> tuple[str, ...]:
    name, text = _text_or_file(env, variable)
    keys = () if text is None else tuple(part.strip() for part in text.split(","))
    # Only visible characters: the content of a PEM file is rejected, because an asymmetric key cannot sign with HS256.
    if not all(_SIGNING_KEY.fullmatch(key) for key in keys):
        raise SettingsError(f"{name} must hold keys of at least 32 visible ASCII characters, separated by commas")
    return keys


def _webhook_private_hosts(env: Env) -> frozenset[tuple[str, int]]:
    name = "EDGE_WEBHOOK_PRIVATE_HOSTS"
    if env.optional(name) is None:
        return frozenset()
    from infra.host_patterns import read_private_hosts  # which a cold start without such hosts does not need

    return read_private_hosts(env, name)


def _cors_origins(env: Env) -> tuple[str, ...]:
    text = env.optional("EDGE_CORS_ORIGINS")
    origins = tuple(part.strip() for part in text.split(",")) if text else ()
    if origins == ("*",):
        return origins
    for origin in origins:
        if not is_origin(origin):
            raise SettingsError(
                f"EDGE_CORS_ORIGINS must be '*', or origins as browsers send them, such as 'https://app.example.ch', "
                f"separated by commas; {origin[:100]!r} is not one"
            )
    return origins


def _base_path(env: Env) -> str:
    path = env.text("EDGE_BASE_PATH", "").rstrip("/")
    if path and not _BASE_PATH.fullmatch(path):
        raise SettingsError(
            f"EDGE_BASE_PATH must be a path such as '/v1', of letters, digits and '._~-'; {path[:100]!r} is not one"
        )
    return path


def _emf_namespace(env: Env) -> str:
    namespace = env.text("EDGE_EMF_NAMESPACE", "")
    if namespace and (not _EMF_NAMESPACE.fullmatch(namespace) or namespace.startswith("AWS/")):
        raise SettingsError(
            "EDGE_EMF_NAMESPACE must be 1 to 255 letters, digits and '._-/#:', and must not begin with 'AWS/'; "
            f"{namespace[:100]!r} is not"
        )
    return namespace


def _text_or_file(env: Env, name: str) -> tuple[str, str | None]:
    """Return the name of the variable that is set, `name` or `name_FILE`, and its text; None if neither is set."""
    inline, path = env.optional(name), env.optional(f"{name}_FILE")
    if inline and path:
        raise SettingsError(f"{name} and {name}_FILE are both set; set one of them")
    if path is None:
        return name, inline
    try:
        return f"{name}_FILE", Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        raise SettingsError(f"{name}_FILE names no readable file") from None
