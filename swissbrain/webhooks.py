"""Webhooks: the check of received events, and the types of the API's responses about deliveries.

    event = verify(body, headers, secret)   # in the handler of your web framework
    if event.type == "run.finished": ...

The events follow Standard Webhooks, so every library for it verifies them as well; this module needs none.
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Iterator, Mapping

import msgspec

from swissbrain.decoding import from_json
from swissbrain.errors import ClientError
from swissbrain.models import Response

TOLERANCE_S = 300
"""Age of a signature up to which it is accepted, as in other libraries; so is the difference of clocks."""
_PREFIX = "whsec_"


class WebhookRejected(ClientError):
    """The call is not one of this API for this secret, or it is too old: answer it with status 400 or 401."""


class WebhookData(Response, frozen=True):
    """Run of an event. `status` is the one that the event reports, `at_ms` its time; the run may have gone on since."""

    run_id: str
    status: str
    error_code: str | None
    metadata: dict[str, str]
    created_ms: int
    started_ms: int | None
    at_ms: int


class WebhookEvent(Response, frozen=True):
    """Received event. `type`: `run.finished`, `run.failed`, `run.waiting` or `run.limit`.

    `event_id` is the header `webhook-id`: the same if the event comes again, which it may.
    """

    type: str
    timestamp: str
    data: WebhookData
    event_id: str = ""


class DeliveryAttempt(Response, frozen=True, omit_defaults=True):
    """Attempt to post an event, `ms` long. `status`: of the answer, None without one; `error`: None if accepted."""

    at_ms: int
    ms: int
    status: int | None = None
    error: str | None = None


class WebhookDelivery(Response, frozen=True):
    """Event of a run for its webhook. `event`: `finished`, `failed`, `waiting` or `limit`.

    `state`: `pending`, `delivered`, `failed` (no more attempts) or `dropped` (it was never sent). `attempts`: number of
    all attempts; `last_attempts` are the last ones, oldest first.
    """

    event_id: str
    event: str
    status: str
    at_ms: int
    state: str
    attempts: int
    last_attempts: list[DeliveryAttempt]


class WebhookDeliveries(Response, frozen=True):
    """Last events of a run, oldest first."""

    events: list[WebhookDelivery]


class WebhookSecret(Response, frozen=True):
    """Secret with which the events of your runs are signed."""

    secret: str

    def __repr__(self) -> str:
        return "WebhookSecret(…)"


class ResentEvent(Response, frozen=True):
    """Event that is sent again."""

    event_id: str


def verify(
    body: bytes | str, headers: Mapping[str, str], secret: str, *, tolerance_s: float = TOLERANCE_S
) -> WebhookEvent:
    """Return the event of a received call. Raises WebhookRejected; nothing of such a call may be used.

    `body` is the raw body, as it came; `headers` may be spelled in any case. An event can come more than once: remember
    its `event_id`. To accept several secrets, try one after the other.
    """
    # Frameworks decode bytes that are no UTF-8 to halves of characters; nothing that is signed has such.
    raw = body.encode("utf-8", "replace") if isinstance(body, str) else bytes(body)
    found = {name.lower(): value for name, value in headers.items()}
    try:
        event_id, sent, signatures = (found[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as exc:
        raise WebhookRejected(f"the header {exc} is missing") from None
    if not (sent.isascii() and sent.isdigit() and len(sent) < 12):
        raise WebhookRejected("the header 'webhook-timestamp' is no number of seconds")
    expected = hmac.new(_key(secret), f"{event_id}.{sent}.".encode("utf-8", "replace") + raw, hashlib.sha256).digest()
    if not any(hmac.compare_digest(expected, given) for given in _given(signatures)):
        raise WebhookRejected("no signature is that of this secret over this body")
    if abs(time.time() - int(sent)) > tolerance_s:
        raise WebhookRejected("the signature is too old, or of the future; compare the clocks of both hosts")
    try:
        event = from_json(raw, WebhookEvent)
    except msgspec.DecodeError:
        raise WebhookRejected("the body is signed, but is no event of this release") from None
    return msgspec.structs.replace(event, event_id=event_id)


def _key(secret: str) -> bytes:
    """Return the bytes of a secret. Raises ClientError: it is wrong here, not in the call."""
    try:
        key = base64.b64decode(secret.strip().removeprefix(_PREFIX) + "==")
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ClientError("the secret is not of the form whsec_…; `swissbrain webhook secret` prints it")
    return key


def _given(signatures: str) -> Iterator[bytes]:
    for each in signatures.split(" "):
        version, _, text = each.partition(",")
        if version == "v1":
            try:
                yield base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                continue
