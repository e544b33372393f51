"""One attempt to deliver a message: the call, and the verdict on its answer."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import msgspec

from infra.qstash_local.messages import MAX_RESPONSE_BYTES, DeliveryResponse, OutboundCall, TakenMessage
from infra.qstash_local.settings import QStashLocalSettings
from infra.qstash_local.signing import sign
from infra.retry_after import retry_after_s

NON_RETRYABLE = 489
"""Status with which a destination, if it also sends `Upstash-NonRetryable-Error: true`, refuses further attempts."""
MAX_RETRY_DELAY_S = 24 * 3600.0
_DROPPED_HEADERS = frozenset({"set-cookie"})


@dataclass(frozen=True)
class Verdict:
    """Next state of a message after an attempt: `delivered`, `retry` after a delay, or `failed`."""

    outcome: str
    delay_s: float = 0.0


class Deliverer:
    """Calls destinations. Redirects are not followed: the signature names one URL."""

    def __init__(self, client: httpx.AsyncClient, settings: QStashLocalSettings) -> None:
        self._client = client
        self._key = settings.current_signing_key
        self._time_scale = settings.time_scale

    async def deliver(self, taken: TakenMessage) -> DeliveryResponse:
        """Make the call; status 0 with the reason in `error` means that there was no answer."""
        call = taken.message.call
        headers = {
            "user-agent": "swissbrain-qstash",
            **call.headers,
            "upstash-message-id": taken.id,
            "upstash-retried": str(taken.retried),
            "upstash-signature": sign(self._key, call.url, call.body),
        }
        if taken.message.schedule_id:
            headers["upstash-schedule-id"] = taken.message.schedule_id
        try:
            async with asyncio.timeout(call.timeout_s):
                return await self._exchange(call, headers)
        except TimeoutError:
            return DeliveryResponse(status=0, error=f"no answer within {call.timeout_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
            return DeliveryResponse(status=0, error=f"{type(exc).__name__}: {exc}"[:500])

    def verdict(self, taken: TakenMessage, response: DeliveryResponse) -> Verdict:
        """Return the next state of the message after the answer."""
        if 200 <= response.status < 300:
            return Verdict("delivered")
        final = response.status == NON_RETRYABLE and _header(response, "upstash-nonretryable-error") == "true"
        if final or taken.retried >= taken.message.call.retries:
            return Verdict("failed")
        wanted_s = retry_after_s({name: _header(response, name) for name in ("retry-after", "date")}) or 0.0
        delay_s = min(wanted_s, MAX_RETRY_DELAY_S) or retry_delay_s(taken.retried)
        return Verdict("retry", delay_s * self._time_scale)

    async def _exchange(self, call: OutboundCall, headers: dict[str, str]) -> DeliveryResponse:
        request = self._client.build_request(call.method, call.url, headers=headers, content=call.body)
        answer = await self._client.send(request, stream=True)
        try:
            body = bytearray()
            # Bytes as they come, without decompression: a small answer must not become a large one.
            async for chunk in answer.aiter_raw():
                body += chunk[: MAX_RESPONSE_BYTES - len(body)]
                if len(body) >= MAX_RESPONSE_BYTES:
                    break
        finally:
            await answer.aclose()
        kept = {name: answer.headers.get_list(name) for name in answer.headers if name not in _DROPPED_HEADERS}
        return DeliveryResponse(status=answer.status_code, headers=kept, body=bytes(body))


def retry_delay_s(retried: int) -> float:
    """Return the delay after the attempt number `retried` (from 0): 12 s, 2.5 min, 30 min, 6 h, at most a day."""
    return min(math.exp(2.5 * min(retried + 1, 10)), MAX_RETRY_DELAY_S)


def callbacks(taken: TakenMessage, response: DeliveryResponse, outcome: str) -> Sequence[OutboundCall]:
    """Return the calls that report an attempt to the URLs which the publisher named."""
    call = taken.message.call
    found = []
    if call.callback:
        found.append((call.callback, call.callback_headers))
    if call.failure_callback and outcome == "failed":
        found.append((call.failure_callback, call.failure_callback_headers))
    if not found:
        return ()
    body = msgspec.json.encode(
        {
            "status": response.status,
            "header": response.headers,
            "body": response.body,
            "retried": taken.retried,
            "maxRetries": call.retries,
            "sourceMessageId": taken.id,
            "url": call.url,
            "method": call.method,
            "sourceBody": call.body,
            "createdAt": taken.message.created_ms,
            **({"error": response.error} if response.error else {}),
        }
    )
    return [
        OutboundCall(
            url=url, body=body, headers={"content-type": "application/json", **headers}, timeout_s=call.timeout_s
        )
        for url, headers in found
    ]


def now_ms() -> int:
    """Return the time of this host in ms since the epoch."""
    return time.time_ns() // 1_000_000


def _header(response: DeliveryResponse, name: str) -> str:
    return (response.headers.get(name) or [""])[0]
