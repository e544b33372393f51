"""Verification of webhooks: the same answers as the library of Standard Webhooks, and none but these."""

import base64
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from infra.webhook_http import signed_headers, user_secret
from swissbrain.errors import ClientError
from swissbrain.webhooks import WebhookRejected, verify

SECRET = user_secret("k" * 40, "ada")
OTHER = user_secret("k" * 40, "bob")
RUN = {"run_id": "run_1", "status": "failed", "error_code": "timeout", "metadata": {"name": "Zoë"}}
BODY = json.dumps(
    {"type": "run.failed", "timestamp": "t", "data": {**RUN, "created_ms": 1, "started_ms": None, "at_ms": 3}, "new": 1}
).encode()


def headers(**changes: str) -> dict[str, str]:
    """Return the headers of a good call, as the library of Standard Webhooks makes them."""
    made = {
        "webhook-id": "run_1-9-3",
        "webhook-timestamp": str(int(time.time())),
        "webhook-signature": Webhook(SECRET).sign("run_1-9-3", datetime.now(tz=UTC), BODY.decode()),
    }
    return made | {f"webhook-{name}": value for name, value in changes.items()}


def test_a_signed_event_is_returned_whatever_made_the_signature() -> None:
    ours = signed_headers([OTHER, SECRET], "run_1-9-3", int(time.time()), BODY)
    shouted = {name.upper(): value for name, value in headers().items()}
    for good in (ours, headers(), shouted):
        event = verify(BODY, good, SECRET)
        assert (event.type, event.event_id) == ("run.failed", "run_1-9-3")
        assert (event.data.run_id, event.data.error_code, event.data.metadata) == ("run_1", "timeout", {"name": "Zoë"})
        assert verify(BODY.decode(), good, SECRET) == event
        assert Webhook(SECRET).verify(BODY, good)["type"] == "run.failed"


@pytest.mark.parametrize(
    ("changes", "body", "secret"),
    [
        ({}, BODY + b" ", SECRET),
        ({}, BODY, OTHER),
        ({"id": "run_1-9-4"}, BODY, SECRET),
        ({"timestamp": str(int(time.time()) - 400)}, BODY, SECRET),
        ({"timestamp": "soon"}, BODY, SECRET),
        ({"signature": ""}, BODY, SECRET),
        ({"signature": "v1,"}, BODY, SECRET),
        ({"signature": f"v2,{base64.b64encode(b'x' * 32).decode()}"}, BODY, SECRET),
        ({"signature": f"v1,{base64.b64encode(b'x' * 32).decode()}"}, BODY, SECRET),
    ],
)
def test_any_other_call_is_rejected_here_and_there(changes: dict[str, str], body: bytes, secret: str) -> None:
    bad = headers(**changes)
    with pytest.raises(WebhookRejected):
        verify(body, bad, secret)
    with pytest.raises((WebhookVerificationError, ValueError)):
        Webhook(secret).verify(body, bad)


@pytest.mark.parametrize("age_s", [-400, 400])
def test_a_signature_is_valid_for_five_minutes(age_s: int) -> None:
    signed = signed_headers([SECRET], "e", int(time.time()) - age_s, BODY)
    with pytest.raises(WebhookRejected, match="too old, or of the future"):
        verify(BODY, signed, SECRET)
    assert verify(BODY, signed, SECRET, tolerance_s=500).event_id == "e"


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(name: str) -> None:
    bad = {each: value for each, value in headers().items() if each != name}
    with pytest.raises(WebhookRejected, match=name):
        verify(BODY, bad, SECRET)


def test_a_call_that_is_no_text_is_rejected() -> None:
    for body, changes in (("\udcff", {}), ("\ud800", {}), ("{}", {"webhook-id": "\udcff"})):
        with pytest.raises(WebhookRejected, match="no signature"):
            verify(body, headers() | changes, SECRET)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"type": 1}', b"\xff", b'{"x": ' + b"[" * 100_000])
def test_a_signed_body_that_is_no_event_is_rejected(body: bytes) -> None:
    with pytest.raises(WebhookRejected, match="no event"):
        verify(body, signed_headers([SECRET], "e", int(time.time()), body), SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_é", "whsec_!"])
def test_a_bad_secret_is_an_error_of_its_own(secret: str) -> None:
    with pytest.raises(ClientError, match="whsec_") as failure:
        verify(BODY, headers(), secret)
    assert not isinstance(failure.value, WebhookRejected)


def test_secrets_differ_and_do_not_show_the_key() -> None:
    made: list[Any] = [user_secret(key * 40, user) for key in "kl" for user in ("ada", "bob")]
    assert len({*made}) == 4
    assert all(each.startswith("whsec_") and len(base64.b64decode(each[6:])) == 32 for each in made)
