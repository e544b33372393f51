"""The edge's settings, read once at its composition root; a missing or bad variable is one line that names it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from infra.settings import Env, RedisRestSettings, S3Settings, SettingsError, StoreSettings

SCOPES = frozenset({"runs:read", "runs:write"})
LOG_MODES = ("stream",)


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A static API key: whose it is, what it allows, and the SHA-256 (hex) of the token, which itself is kept nowhere.

    The user id becomes part of Redis keys and of object keys, so it is kept to characters that are plain in both.
    """

    user: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_@.-]{0,63}$")]
    scopes: Annotated[list[str], msgspec.Meta(min_length=1)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class ApiSettings:
    """What the application itself needs. `stream_hold_s` 0 means that a log stream is held without a bound."""

    log_mode: str = "stream"
    stream_hold_s: float = 3600.0
    stream_ping_s: float = 15.0
    stream_stall_s: float = 30.0
    presign_expiry_s: int = 300
    max_body_bytes: int = 1024 * 1024

    @classmethod
    def from_env(cls, env: Env) -> "ApiSettings":
        """From `EDGE_LOG_MODE EDGE_STREAM_HOLD_S EDGE_STREAM_PING_S EDGE_STREAM_STALL_S EDGE_PRESIGN_EXPIRY_S`."""
        log_mode = env.text("EDGE_LOG_MODE", cls.log_mode)
        if log_mode not in LOG_MODES:
            raise SettingsError(f"EDGE_LOG_MODE must be one of {', '.join(LOG_MODES)}, not '{log_mode}'")
        return cls(
            log_mode=log_mode,
            stream_hold_s=env.number("EDGE_STREAM_HOLD_S", cls.stream_hold_s, low=0, high=7 * 24 * 3600),
            stream_ping_s=env.number("EDGE_STREAM_PING_S", cls.stream_ping_s, low=0.05, high=60),
            stream_stall_s=env.number("EDGE_STREAM_STALL_S", cls.stream_stall_s, low=0.05, high=600),
            presign_expiry_s=env.integer("EDGE_PRESIGN_EXPIRY_S", cls.presign_expiry_s, low=1, high=7 * 24 * 3600),
        )


@dataclass(frozen=True)
class EdgeSettings:
    """Everything that the composition root needs."""

    redis: RedisRestSettings
    s3: S3Settings
    api: ApiSettings
    api_keys: tuple[ApiKey, ...] = field(repr=False)
    store: StoreSettings

    @classmethod
    def from_env(cls, env: Env) -> "EdgeSettings":
        """From the variables of its parts, and `SWISSBRAIN_API_KEYS[_FILE]`."""
        return cls(
            redis=RedisRestSettings.from_env(env),
            s3=S3Settings.from_env(env),
            api=ApiSettings.from_env(env),
            api_keys=_api_keys(env),
            store=StoreSettings.from_env(env),
        )


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens when the edge runs under uvicorn."""

    host: str
    port: int

    @classmethod
    def from_env(cls, env: Env) -> "ServerSettings":
        """From `EDGE_HOST EDGE_PORT`."""
        return cls(
            host=env.text("EDGE_HOST", "127.0.0.1"),
            port=env.integer("EDGE_PORT", 8787, low=0, high=65535),
        )


def _api_keys(env: Env) -> tuple[ApiKey, ...]:
    name, text = _api_keys_text(env)
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


def _api_keys_text(env: Env) -> tuple[str, str]:
    inline, path = env.optional("SWISSBRAIN_API_KEYS"), env.optional("SWISSBRAIN_API_KEYS_FILE")
    if inline and path:
        raise SettingsError("SWISSBRAIN_API_KEYS and SWISSBRAIN_API_KEYS_FILE are both set")
    if path is None:
        return "SWISSBRAIN_API_KEYS", env.text("SWISSBRAIN_API_KEYS")
    try:
        return "SWISSBRAIN_API_KEYS_FILE", Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise SettingsError("SWISSBRAIN_API_KEYS_FILE names no readable file") from None
