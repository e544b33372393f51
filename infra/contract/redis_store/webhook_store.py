"""The outbox of webhooks, and the deliveries of a run's events, one method per script."""

from collections.abc import Mapping, Sequence

import msgspec

from infra.contract.errors import LimitExceeded, RunGone
from infra.contract.keys import Keys
from infra.contract.redis import Redis
from infra.contract.redis_store import codec, scripts
from infra.contract.redis_store.reader import RunReader, readable
from infra.contract.runs import Brief
from infra.contract.states import Outcome
from infra.contract.webhooks import (
    MAX_ATTEMPTS_SHOWN,
    MAX_ROUNDS,
    Delivery,
    DeliveryAttempt,
    DeliveryState,
    DeliveryTask,
    EventRef,
    NotedEvent,
)

_TAKE, _PUBLISHED, _BEGIN, _SETTLE, _RESEND = map(
    scripts.load, ("webhook_take", "webhook_published", "webhook_begin", "webhook_settle", "webhook_resend")
)
_PREFIX = "hook:"


class WebhookStore(RunReader):
    """Outbox and deliveries.

    Every method raises StoreUnavailable if Redis did not reply in time; the change may then have been made, and calling
    the method again with the same arguments is safe.
    """

    def __init__(self, redis: Redis, keys: Keys | None = None) -> None:
        super().__init__(redis, keys or Keys())
        self._scripts = scripts.ScriptCaller(redis, self.keys)

    async def take(self, count: int) -> list[str]:
        """Return up to `count` entries that nobody has published in time. Others get them only after AGAIN_MS."""
        return [str(entry) for entry in codec.items(await self._scripts.call(_TAKE, {"count": count}))]

    async def published(self, entries: Sequence[str]) -> None:
        """Remove entries that QStash has."""
        await self._scripts.call(_PUBLISHED, {"count": len(entries)}, more_args=entries)

    async def begin(self, ref: EventRef, *, token: str, lease_ms: int) -> tuple[Outcome, DeliveryTask | None, int]:
        """Begin an attempt to post an event; return the outcome, what is posted, and ms to wait.

        SAME: it is delivered, or sent under a later number. REFUSED: another attempt is under way, at most for these
        ms. GONE: there is no such event. Raises RecordUnreadable.
        """
        reply = codec.items(
            await self._scripts.call(
                _BEGIN,
                {"seq": ref.seq, "at_ms": ref.at_ms, "round": ref.round, "token": token, "lease_ms": lease_ms},
                run_id=ref.run_id,
                user=ref.user,
            )
        )
        outcome = codec.outcome(reply)
        if outcome is Outcome.REFUSED:
            return outcome, None, int(str(reply[1]))
        if outcome is not Outcome.OK:
            return outcome, None, 0
        noted, url, brief, created_ms, started_ms = (str(item) for item in reply[1:])
        with readable(ref.run_id):
            task = DeliveryTask(
                url=url,
                noted=msgspec.json.decode(noted, type=NotedEvent),
                metadata=msgspec.json.decode(brief, type=Brief).metadata,
                created_ms=int(created_ms),
                started_ms=int(started_ms) if started_ms else None,
            )
        return outcome, task, 0

    async def settle(self, ref: EventRef, *, token: str, attempt: DeliveryAttempt, result: str) -> Outcome:
        """Record how an attempt has ended: `delivered`, `failed` (for good) or `again`."""
        reply = await self._scripts.call(
            _SETTLE,
            {
                "seq": ref.seq,
                "at_ms": ref.at_ms,
                "round": ref.round,
                "token": token,
                "result": result,
                "attempt": codec.encode(attempt),
            },
            run_id=ref.run_id,
        )
        return Outcome(str(reply))

    async def resend(self, ref: EventRef, *, token: str) -> str | None:
        """Put an event into the outbox again, under the next number; return the entry.

        None: this request was carried out before. Raises RunGone if there is no such event, and LimitExceeded.
        """
        reply = codec.items(
            await self._scripts.call(
                _RESEND,
                {"seq": ref.seq, "at_ms": ref.at_ms, "token": token, "max_rounds": MAX_ROUNDS},
                run_id=ref.run_id,
                user=ref.user,
            )
        )
        match str(reply[0]):
            case "GONE":
                raise RunGone(f"the run has no event '{ref.event_id}'; see its deliveries")
            case "FULL":
                raise LimitExceeded(f"the event was sent {MAX_ROUNDS} times, and more is not allowed")
            case "REFUSED":
                raise LimitExceeded("too many events wait for QStash; try again later")
        return str(reply[1]) if reply[0] == "OK" else None

    async def deliveries(self, user: str, run_id: str) -> list[Delivery]:
        """Return the events of a run with their deliveries, oldest first; none if there is no such run."""
        fields = await self._matching(run_id, _PREFIX)
        seqs = sorted(int(name) for name in (each.removeprefix(_PREFIX) for each in fields) if name.isdigit())
        with readable(run_id):
            return [_delivery(user, run_id, seq, fields) for seq in seqs]


def _delivery(user: str, run_id: str, seq: int, fields: Mapping[str, str]) -> Delivery:
    name = f"{_PREFIX}{seq}"
    noted = msgspec.json.decode(fields[name], type=NotedEvent)
    round_, tries = (int(fields.get(f"{name}:{part}", low)) for part, low in (("round", 1), ("tries", 0)))
    shown = (fields.get(f"{name}:{number}") for number in range(max(1, tries - MAX_ATTEMPTS_SHOWN + 1), tries + 1))
    return Delivery(
        ref=EventRef(user=user, run_id=run_id, seq=seq, at_ms=noted.at_ms, round=round_),
        noted=noted,
        state=_state(noted, round_, fields.get(f"{name}:done"), fields.get(f"{name}:failed")),
        attempts=tries,
        last_attempts=[msgspec.json.decode(text, type=DeliveryAttempt) for text in shown if text],
    )


def _state(noted: NotedEvent, round_: int, done: str | None, failed: str | None) -> DeliveryState:
    if done is not None and int(done) >= round_:
        return "delivered"
    if failed is not None and int(failed) >= round_:
        return "failed"
    return "dropped" if noted.dropped and round_ == 1 else "pending"
