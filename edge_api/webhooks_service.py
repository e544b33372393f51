"""Webhooks: the URL of a run is checked, its events are posted to it, and deliveries are shown and repeated."""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from edge_api.http.errors import BadRequest, WebhooksOff
from edge_api.http.webhook_models import DeliveryResult, PostedEvent, PostedRun, ResentEvent, WebhookDelivery
from edge_api.run_states import request_token
from infra.contract.errors import DeliveryFailed, DeliveryRefused, InvalidInput, RunGone
from infra.contract.runs import RunSpec
from infra.contract.states import Outcome
from infra.contract.webhooks import MAX_RETRIES, DeliveryAttempt, DeliveryTask, EventRef
from infra.logging import log

if TYPE_CHECKING:
    from infra.contract.redis_store.webhook_store import WebhookStore
    from infra.event_publisher import EventPublisher
    from infra.webhook_http import Receipt, WebhookHttp

LEASE_MS = 25_000
"""Time in which an attempt is settled, if its process lives: that of an exchange, and some for Redis."""
PUBLISH_S = 3.0
"""Longest wait of a request for QStash. What it has not accepted by then is published later."""
PATIENT_POSTS = 4
"""Attempts for a user at a time, in this process, that may last DEADLINE_S. Further ones are hurried: QStash makes a
limited number of calls at a time, and receivers that do not answer must not delay what others wait for."""


@dataclass(frozen=True)
class Webhooks:
    """What webhooks need. `http` returns the same client each time.

    The first key makes the secrets that users get; all keys sign, for a change of keys.
    """

    store: "WebhookStore"
    publisher: "EventPublisher"
    http: "Callable[[], WebhookHttp]"
    keys: Sequence[str] = field(repr=False)


class WebhookService:
    """Operations on webhooks.

    Methods raise WebhooksOff if this API has none, because its settings lack the variables `lacks`.
    """

    def __init__(self, webhooks: Webhooks | None = None, lacks: str = "QSTASH_TOKEN and EDGE_WEBHOOK_KEY") -> None:
        self._webhooks = webhooks
        self._lacks = lacks
        self._posts: Counter[str] = Counter()

    def check(self, spec: RunSpec, at: str = "$") -> None:
        """Raise InvalidInput if the URL of a run may not be called; WebhooksOff."""
        if spec.webhook_url is None:
            return
        parts = self._parts
        from infra.checked_http import UrlNotAllowed  # which a cold start for other requests does not need

        try:
            parts.http().target(spec.webhook_url)
        except UrlNotAllowed as exc:
            raise InvalidInput(f"the URL cannot be called: {exc}", f"{at}.webhook_url") from None

    def secret(self, user: str) -> str:
        """Return the secret of a user."""
        from infra.webhook_http import user_secret

        return user_secret(self._parts.keys[0], user)

    async def publish(self) -> None:
        """Publish the events that this process has noted. Never fails: what is left is published later."""
        if self._webhooks is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(PUBLISH_S):
                    await self._webhooks.publisher.publish_noted()

    async def publish_overdue(self) -> int:
        """Publish events that nobody has published in time; return their number."""
        return 0 if self._webhooks is None else (await self._webhooks.publisher.publish_overdue())[0]

    async def deliveries(self, user: str, run_id: str) -> list[WebhookDelivery]:
        """Return the last events of a run of the user, oldest first."""
        return [WebhookDelivery.of(each) for each in await self._parts.store.deliveries(user, run_id)]

    async def resend(self, user: str, run_id: str, event_id: str, *, key: str | None) -> ResentEvent:
        """Send an event of a run of the user again. Raises RunGone if there is none, and LimitExceeded."""
        parts = self._parts
        try:
            ref = EventRef.of_event_id(user, run_id, event_id)
        except ValueError:
            raise RunGone(f"the run has no event '{event_id[:200]}'; see its deliveries") from None
        entry = await parts.store.resend(ref, token=request_token(user, key))
        if entry:
            parts.publisher.noted(entry)
            await self.publish()
            log("webhook.resent", run_id=run_id, event=event_id)
        return ResentEvent(event_id=event_id)

    async def deliver(self, entry: str, retried: int) -> DeliveryResult:
        """Post an event to the URL of its run, unless it was delivered before. `retried`: retries of QStash so far.

        Raises DeliveryFailed if another attempt may succeed, DeliveryRefused if not, and BadRequest.
        """
        from infra.webhook_http import signed_headers, user_secret

        parts = self._parts
        try:
            ref = EventRef.parse(entry)
        except ValueError:
            raise BadRequest("the body names no event") from None
        token = secrets.token_hex(8)
        outcome, task, busy_ms = await parts.store.begin(ref, token=token, lease_ms=LEASE_MS)
        if outcome is Outcome.REFUSED:
            raise DeliveryFailed("another attempt is under way", retry_after_s=busy_ms // 1000 + 1)
        if task is None:
            result = DeliveryResult(outcome="duplicate" if outcome is Outcome.SAME else "gone")
            log("webhook.skipped", run_id=ref.run_id, event=ref.event_id, reason=result.outcome)
            return result
        now_s = int(time.time())
        body = _body(ref, task)
        signing = [user_secret(key, ref.user) for key in parts.keys]
        self._posts[ref.user] += 1
        try:
            headers, hurried = signed_headers(signing, ref.event_id, now_s, body), self._posts[ref.user] > PATIENT_POSTS
            receipt = await parts.http().post(task.url, headers, body, hurried=hurried)
        finally:
            self._posts -= Counter([ref.user])  # which drops users without posts
        last = receipt.final or retried >= MAX_RETRIES
        attempt = DeliveryAttempt(at_ms=now_s * 1000, ms=receipt.ms, status=receipt.status, error=receipt.error)
        result_name = "delivered" if receipt.accepted else "failed" if last else "again"
        await parts.store.settle(ref, token=token, attempt=attempt, result=result_name)
        _log(ref, receipt, result_name)
        if receipt.accepted:
            return DeliveryResult(outcome="delivered")
        error = DeliveryRefused if receipt.final else DeliveryFailed
        raise error(f"the event was not accepted: {receipt.error}", retry_after_s=receipt.retry_after_s)

    @property
    def _parts(self) -> Webhooks:
        if self._webhooks is None:
            raise WebhooksOff(f"this API calls no webhooks; its operator sets {self._lacks}")
        return self._webhooks


def _log(ref: EventRef, receipt: "Receipt", result: str) -> None:
    # Neither the URL nor its host: both are the user's, and the URL may hold a secret.
    run, event, ms, status = ref.run_id, ref.event_id, receipt.ms, receipt.status
    if receipt.accepted:
        log("webhook.delivered", run_id=run, event=event, ms=ms, status=status)
        return
    last, why = result == "failed", receipt.error
    log("webhook.failed", level=logging.WARNING, run_id=run, event=event, ms=ms, status=status, reason=why, last=last)


def _body(ref: EventRef, task: DeliveryTask) -> bytes:
    at = datetime.fromtimestamp(ref.at_ms / 1000, UTC)
    data = PostedRun(
        run_id=ref.run_id,
        status=task.noted.status,
        error_code=task.noted.code,
        metadata=task.metadata,
        created_ms=task.created_ms,
        started_ms=task.started_ms,
        at_ms=ref.at_ms,
    )
    timestamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode(PostedEvent(type=f"run.{task.noted.event}", timestamp=timestamp, data=data))
