"""Client of the Upstash SDK that behaves as the port `Redis` promises."""

import re
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar, cast

import httpx
from upstash_redis.asyncio import Redis
from upstash_redis.errors import UpstashError

from infra.contract.errors import (
    TRANSIENT_CODES,
    ContractError,
    StoreFull,
    StoreRefuses,
    StoreRejected,
    StoreUnavailable,
)
from infra.contract.redis import Argument, Reply
from infra.redis_rest.httpx_transport import HttpxTransport
from infra.redis_rest.transport import PipelinedError, RestTransport

T = TypeVar("T")

_QUOTA = re.compile(r"ERR (max (?:daily request limit|requests limit|commands per second|concurrent connections))\b")
"""Errors with which Upstash refuses all commands for a while."""
QUOTA_EXCEEDED = "DB capacity quota exceeded"
"""Text of the error with which Upstash refuses writes to a full database."""

LOST_REPLIES = ("; the command may have been executed", "; the command was not sent")
"""Ends of the errors with which our gateway answers the commands of a pipeline that broke in its middle."""
TOO_LARGE = "ERR max request size exceeded"
"""Begin of the error for a reply that is too large, as it is each time."""


class UpstashClient:
    """Sends commands and pipelines through `upstash-redis`, with work-arounds for five of its habits.

    1. Command names are sent in lower case. The SDK reshapes the replies of the commands that it knows, and it knows
       them in upper case; the port promises replies in their RESP2 shape.
    2. An answer with status 5xx raises before the SDK reads it. The SDK reads the body alone, whose `error` looks the
       same for an outage and for a command that Redis rejected.
    3. Its retries are off: it would repeat any command silently, but only the caller knows whether a command is safe to
       repeat. Its telemetry is off, too: it would send the versions and the platform of this host.
    4. Its HTTP client is replaced by `transport`, which checks the shape of answers, and which in a server needs a
       fraction of the processor time.
    5. It raises the first error of a pipeline, and drops the replies to the other commands. The transport hands errors
       over as values.

    Has no deadline: the caller sets one. Errors: StoreUnavailable (there was no reply, or Redis cannot execute
    commands now) and StoreRejected (Redis replied with an error).
    """

    def __init__(self, url: str, token: str, *, starts_cold: bool) -> None:
        self._sdk = Redis(url, token, rest_retries=0, allow_telemetry=False)
        self.transport = _transport(url, self._sdk._http._client, starts_cold=starts_cold)
        self._sdk._http._client = cast("Any", self.transport)

    async def execute(self, command: Sequence[Argument]) -> Reply:
        """Execute one command in one request."""
        return await _translate_errors(cast("Awaitable[Reply]", self._sdk.execute(_lower_name(command))))

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> "list[Reply | ContractError]":
        """Execute commands in one request, one after the other; return the reply or the error of each."""
        pipeline = self._sdk.pipeline()
        for command in commands:
            pipeline.execute(_lower_name(command))
        replies = await _translate_errors(cast("Awaitable[list[Reply | PipelinedError]]", pipeline.exec()))
        return [_error(reply.text) if isinstance(reply, PipelinedError) else reply for reply in replies]


def _transport(url: str, client: httpx.AsyncClient, *, starts_cold: bool) -> RestTransport:
    if starts_cold:
        return HttpxTransport(client)
    from infra.redis_rest.aiohttp_transport import AiohttpTransport  # the import takes 100 ms of processor time

    return AiohttpTransport(url)


def _lower_name(command: Sequence[Argument]) -> list[Argument]:
    name, *args = command
    return [str(name).lower(), *args]


async def _translate_errors(reply: Awaitable[T]) -> T:
    """Await a reply of the SDK; raise the contract's errors instead of the SDK's."""
    try:
        return await reply
    except UpstashError as exc:
        raise _error(str(exc)) from exc
    except UnicodeDecodeError as exc:
        # A stored value is not UTF-8: another try would meet it again.
        raise StoreRejected("the reply holds bytes that are not UTF-8") from exc
    except (ValueError, KeyError) as exc:
        # The body is not JSON, or not an object of the protocol, so it came from a proxy.
        raise StoreUnavailable(f"no reply from Redis: {type(exc).__name__}") from None


def _error(text: str) -> ContractError:
    """Return the contract's error for the text of an error of Redis."""
    code = text.partition(" ")[0]
    if code == "OOM" or QUOTA_EXCEEDED in text:
        return StoreFull("Redis has no memory left for the command")
    if code in TRANSIENT_CODES:
        return StoreRefuses(f"{TRANSIENT_CODES[code]} ({code})")
    if text.endswith(LOST_REPLIES) and not text.startswith(TOO_LARGE):
        return StoreUnavailable(f"no reply from Redis: {text}")
    if quota := _QUOTA.match(text):
        return StoreRefuses(f"its {quota[1]} is exceeded")
    return StoreRejected(text)
