"""Checks of Redis, through both of its clients, and of the object store, with the credentials of API and workers."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

import httpx

from infra.contract.errors import ContractError
from infra.contract.redis import Redis
from infra.contract.redis_store import codec
from infra.redis_rest import RedisRest
from infra.redis_tcp import RedisTcp
from infra.settings import Env, RedisRestSettings, RedisTcpSettings, S3Settings, StoreSettings
from infra.workspace import Workspaces
from swissbrain.cli.checks import MAX_SKEW_S, CheckFailed, Checklist
from swissbrain.environment import open_client

KEY_S = 60
"""Time after which the key of the check expires, if the command is killed before it has deleted the key."""
_METHODS = ("GET", "PUT")


def check_stores(checks: Checklist, env: Env, origin: str | None) -> None:
    """Check Redis, the object store, and its rules for pages of an origin. Raises SettingsError."""
    key = f"{StoreSettings.from_env(env).keys.prefix}verify:{secrets.token_hex(8)}"
    value = secrets.token_hex(8)
    written = False
    if env.optional("UPSTASH_REDIS_REST_URL"):
        rest = RedisRestSettings.from_env(env)
        written = checks.check("Redis by REST", lambda: asyncio.run(_with(RedisRest(rest), _write(key, value))))
    else:
        checks.skip("Redis by REST", "UPSTASH_REDIS_REST_URL is not set")
    if env.optional("REDIS_URL"):
        tcp = RedisTcpSettings.from_env(env)
        expected = value if written else None
        checks.check("Redis by TCP", lambda: asyncio.run(_with(RedisTcp(tcp), _read(key, expected))))
    else:
        checks.skip("Redis by TCP", "REDIS_URL is not set")
    if not env.optional("S3_ACCESS_KEY"):
        checks.skip("object store", "S3_ACCESS_KEY is not set")
        return
    s3 = S3Settings.from_env(env)
    checks.check("object store", lambda: asyncio.run(_use_bucket(s3)))
    origin = origin or env.text("EDGE_CORS_ORIGINS", "-").split(",")[0].strip()
    if origin == "-":
        checks.skip("CORS of bucket", "neither --origin nor EDGE_CORS_ORIGINS is given")
    else:
        checks.check("CORS of bucket", lambda: _preflight(s3, origin))


async def _with(redis: RedisRest | RedisTcp, work: Callable[[Redis], Awaitable[str]]) -> str:
    """Do some work with Redis. Raises CheckFailed for its errors."""
    try:
        seconds, _ = map(str, codec.items(await redis.command("TIME")))
        if abs(difference := int(seconds) - time.time()) > MAX_SKEW_S:
            raise CheckFailed(f"its clock differs by {difference:.0f} s; synchronise both (NTP)")
        return await work(redis)
    except ContractError as exc:
        raise CheckFailed(str(exc)) from None
    finally:
        await redis.close()


def _write(key: str, value: str) -> Callable[[Redis], Awaitable[str]]:
    async def write(redis: Redis) -> str:
        await redis.command("SET", key, value, "EX", KEY_S)
        return "a key can be written"

    return write


def _read(key: str, expected: str | None) -> Callable[[Redis], Awaitable[str]]:
    """Return the work that reads and deletes the key, and expects this value; None: it writes the key itself."""

    async def read(redis: Redis) -> str:
        if expected is None:
            await redis.command("SET", key, "", "EX", KEY_S)
        found = await redis.command("GET", key)
        await redis.command("DEL", key)
        if expected is not None and found != expected:
            raise CheckFailed("REDIS_URL and UPSTASH_REDIS_REST_URL lead to different databases")
        return "a key can be written" if expected is None else "the same database, which can be written"

    return read


async def _use_bucket(s3: S3Settings) -> str:
    workspaces = Workspaces(s3)
    try:
        await workspaces.check()
    except ContractError as exc:
        raise CheckFailed(str(exc)) from None
    finally:
        workspaces.close()
    return f"an object can be stored in '{s3.bucket}', read and deleted"


def _preflight(s3: S3Settings, origin: str) -> str:
    """Ask the store as a browser would. Only the first of the methods that is refused is named."""
    asked = "https://origin.example" if origin == "*" else origin
    url = f"{s3.endpoint_url or f'https://s3.{s3.region}.amazonaws.com'}/{s3.bucket}/verify"
    with open_client(httpx.URL(url)) as http:
        for method in _METHODS:
            headers = {"Origin": asked, "Access-Control-Request-Method": method}
            try:
                answer = http.options(url, headers=headers)
            except httpx.HTTPError as exc:
                raise CheckFailed(f"no answer from the object store: {type(exc).__name__}") from None
            allowed = answer.headers.get("access-control-allow-origin", "")
            methods = answer.headers.get("access-control-allow-methods", method)
            if answer.is_error or allowed not in {asked, "*"} or method not in methods:
                raise CheckFailed(
                    f"the bucket does not allow {method} to pages of {asked}; set its CORS rules (docs/browser.md)"
                )
    return f"pages of {asked} may {' and '.join(_METHODS)}"
