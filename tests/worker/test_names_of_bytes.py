"""Names that are not UTF-8, of files and in damaged keys: they end no worker, and their log lines are JSON."""

import json
import logging

from infra.contract.redis_store.webhook_store import WebhookStore
from infra.event_publisher import EventPublisher
from infra.logging import JsonFormatter
from tests.worker.rig import Rig

OUTBOX = "webhooks:outbox"


class AcceptingQStash:
    def __init__(self) -> None:
        self.accepted: list[str] = []

    async def publish(self, path: str, body: str, deduplication_id: str, sharer: str) -> None:
        self.accepted.append(deduplication_id)


async def test_an_entry_of_the_outbox_that_is_not_utf8_is_dropped_and_stops_no_other(rig: Rig) -> None:
    """It ended each worker that published the outbox."""
    script = r"return redis.call('ZADD', KEYS[1], 1, 'ad\255:run_a:1:2:1', 2, 'ada:run_b:1:2:1')"
    await rig.redis.command("EVAL", script, 1, OUTBOX)
    qstash = AcceptingQStash()

    assert await EventPublisher(WebhookStore(rig.redis), qstash).publish_overdue() == (2, True)

    assert qstash.accepted == ["run_b-1-2-1"]
    assert await rig.redis.command("ZCARD", OUTBOX) == 0


def test_a_log_line_with_a_name_that_is_not_utf8_is_json() -> None:
    record = logging.makeLogRecord(
        {"msg": "scratch.remove_failed", "fields": {"folder": "a\udcff", "reason": OSError(1)}}
    )

    assert json.loads(JsonFormatter().format(record))["folder"] == "a\udcff"
