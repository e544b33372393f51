"""State changes that a worker makes under its leases, one method per script."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

from msgspec import structs

from infra.contract.event_sizing import fit_requests, truncate, truncate_text
from infra.contract.events import RunWaiting
from infra.contract.log import NewEvent, Segment
from infra.contract.queue import ALIVE_MS, UNNUMBERED, ClaimReply, ClaimSeq, Lease, LeaseReply, QueueTally, Writes
from infra.contract.redis import Argument, Reply, Script
from infra.contract.redis_store import codec, scripts, usage_sums
from infra.contract.redis_store.reader import UNDECODABLE
from infra.contract.redis_store.run_writer import RunWriter
from infra.contract.requests import OpenRequest, check_requests
from infra.contract.runs import MAX_ERROR_CHARS, RECORD_VERSION, RunError, RunRecord
from infra.contract.states import Outcome, Status
from infra.contract.usage import DAY_S, EPOCH

_CLAIM, _RENEW, _EMIT, _FINISH, _RELEASE, _WAIT, _TRIM = map(
    scripts.load, ("claim", "renew", "emit", "finish", "release", "wait", "trim")
)


class WorkQueue(RunWriter):
    """Queue as a worker sees it, and all reads."""

    async def claim(
        self,
        worker: str,
        wanted: int,
        *,
        lease_ms: int,
        token_taken: bool = False,
        seq: ClaimSeq = UNNUMBERED,
        alive: bool = False,
    ) -> ClaimReply:
        """Recover expired leases, promote due runs, and grant up to `wanted` ready runs, each with a new fence.

        `token_taken`: the worker has taken a wake token since its last claim. Runs granted by claims whose replies were
        lost are requeued first; `infra.contract.queue` says how. `alive`: note that this worker process is alive.
        """
        reply = await self._scripts.call(
            _CLAIM,
            {
                "worker": worker,
                "wanted": wanted,
                "lease_ms": lease_ms,
                "retention_s": self._retention_s,
                "version": RECORD_VERSION,
                "token_taken": int(token_taken),
                "process": seq.process,
                "claim_seq": seq.number,
                "last_acked": -1 if seq.last_acked is None else seq.last_acked,
                "alive_ms": ALIVE_MS if alive else 0,
            },
            more_args=seq.dead,
        )
        next_ms, set_aside, counts, events_due, *records = codec.items(reply)
        if events_due and self._events:
            self._events.due()
        claims, unreadable = [], []
        for fields in map(codec.pairs, records):
            try:
                claims.append(codec.decode_claim(fields))
            except UNDECODABLE:
                unreadable.append(Lease(fields["id"], int(fields["fence"]), owner=fields["claim"]))
        due_ms, tally = None if next_ms == -1 else int(str(next_ms)), QueueTally.of(codec.pairs(counts))
        return ClaimReply(claims, unreadable, due_ms, codec.pairs(set_aside), tally)

    async def sign_off(self, process: str) -> None:
        """Note that a worker process asks for no more work."""
        await self._redis.command("ZREM", self.keys.workers, process)

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> list[LeaseReply]:
        """Prolong the leases of all of a worker's runs in one call; return the replies in the order of `leases`."""
        keys = [self.keys.run(lease.run_id) for lease in leases]
        more = [value for lease in leases for value in (lease.run_id, lease.fence, lease.owner)]
        reply = await self._scripts.call(
            _RENEW,
            {
                "lease_ms": lease_ms,
            },
            more_keys=keys,
            more_args=more,
        )
        flat = codec.items(reply)
        return [
            LeaseReply(outcome=Outcome(str(name)), cancel=stop == "1", interrupt=stop == "2")
            for name, stop in zip(flat[::2], flat[1::2], strict=True)
        ]

    async def emit(self, lease: Lease, writes: Writes) -> LeaseReply:
        """Append events to the log, publish them, and store journal and files in the record, all or nothing.

        The batch's number is `lease.batch + 1`. The caller advances `lease.batch` on OK or SAME, so an emit whose reply
        was lost is repeated under its own number.
        """
        reply = await self._fenced(_EMIT, lease, writes)
        name, stop, _, messages = codec.items(reply)
        return LeaseReply(
            outcome=Outcome(str(name)), cancel=stop == "1", interrupt=stop == "2", messages=int(str(messages))
        )

    async def finish(
        self,
        lease: Lease,
        status: Status,
        writes: Writes,
        *,
        result: Mapping[str, object] | None = None,
        error: RunError | None = None,
        read: int = 0,
    ) -> Outcome:
        """End a run: store its last writes (the terminal event last), status, and result or error in one step.

        REFUSED if it is to succeed, and has messages with a higher number than `read`.
        """
        return await self._write(
            _FINISH,
            lease,
            writes,
            {
                "status": status.value,
                "result": codec.encode(result) if result is not None else "",
                "failure": _stored_error(error),
                "retention_s": self._retention_s,
                "read": read,
            },
        )

    async def release(self, lease: Lease, writes: Writes, *, delay_ms: int, burn: bool) -> Outcome:
        """Requeue a run, ready now or after `delay_ms`. `burn`: whether the attempt counts."""
        end = "given_back" if burn else "drained"
        return await self._write(_RELEASE, lease, writes, {"delay_ms": delay_ms, "end_as": end})

    async def release_unable(self, lease: Lease, writes: Writes, *, delay_ms: int) -> Outcome:
        """Requeue a run whose next step this worker is unable to execute. Counted in `unable`, not as an attempt."""
        return await self._write(_RELEASE, lease, writes, {"delay_ms": delay_ms, "end_as": "unable"})

    async def release_for_message(self, lease: Lease, writes: Writes) -> Outcome:
        """Requeue a run that has a message which its strategy has not read. The attempt does not count."""
        return await self._write(_RELEASE, lease, writes, {"delay_ms": 0, "end_as": "message"})

    async def wait(self, lease: Lease, writes: Writes, requests: Sequence[OpenRequest]) -> Outcome:
        """Let a run wait for answers to requests: it holds no lease and no worker slot meanwhile.

        The event `run.waiting` is added to the writes. The attempt does not count, and answers of earlier requests are
        removed. REFUSED if a cancel was requested. Raises ValueError if a run may not wait with these requests.
        """
        now_ms = time.time_ns() // 1_000_000
        check_requests(requests, now_ms)
        shown = fit_requests(requests)
        data = truncate(RunWaiting(question=shown[0]["question"], requests=shown))
        event = NewEvent(ts=now_ms, type=RunWaiting.TYPE, data=data)
        args: dict[str, Argument] = {
            "version": RECORD_VERSION,
            "requests": codec.encode_requests(shown),
            "expires_ms": min(request.expires_ms for request in requests),
        }
        return await self._write(_WAIT, lease, structs.replace(writes, events=[*writes.events, event]), args)

    async def trim(self, run: RunRecord, segments: Sequence[Segment], *, owner: str = "") -> Outcome:
        """Store the list of all archived segments of a claimed run, then delete their events from Redis, except for
        the stream entry that holds the last one.

        Allowed after the run has ended, until another claim: LOST from then on. GONE if the run has been deleted or is
        being deleted, even if another run has its id by now. A repeated call returns OK.
        """
        reply = await self._scripts.call(
            _TRIM,
            {
                "fence": run.fence,
                "owner": owner,
                "created_ms": run.created_ms,
                "segments": codec.encode(segments),
                "last": segments[-1].last,
            },
            run_id=run.id,
        )
        return codec.outcome(reply)

    async def _write(
        self, script: Script, lease: Lease, writes: Writes, args: Mapping[str, Argument] = MappingProxyType({})
    ) -> Outcome:
        """Call a script that takes a run out of `running` together with its last writes."""
        reply = await self._fenced(script, lease, writes, args)
        self._note_event(reply)
        return codec.outcome(reply)

    async def _fenced(
        self, script: Script, lease: Lease, writes: Writes, args: Mapping[str, Argument] = MappingProxyType({})
    ) -> Reply:
        """Call a script with the writes of a run's owner; return its reply."""
        usage, days = self._counted(lease, writes)
        return await self._scripts.call(
            script,
            {
                "fence": lease.fence,
                "owner": lease.owner,
                "batch": lease.batch + 1,
                "count": len(writes.events),
                "events": codec.encode_events(writes.events),
                "usage": usage,
                **args,
            },
            run_id=lease.run_id,
            more_keys=days,
            more_args=codec.encode_fields(writes),
        )

    def _counted(self, lease: Lease, writes: Writes) -> tuple[str, list[str]]:
        """Return the usage of a write as an argument, and the keys of the days in one of which it is counted.

        Redis's clock picks the day; this process's clock names the days around it. Raises ValueError if the lease has
        no user.
        """
        if writes.usage is None:
            return "", []
        if not lease.user:
            raise ValueError(f"a write with usage needs the user of the run {lease.run_id} in its lease")
        first_day = int(time.time()) // DAY_S - 1
        days = [EPOCH + timedelta(days=first_day + index) for index in range(3)]
        return usage_sums.encode(writes.usage, first_day), [self.keys.usage(lease.user, day) for day in days]


def _stored_error(error: RunError | None) -> str:
    if error is None:
        return ""
    return codec.encode(structs.replace(error, message=truncate_text(error.message, MAX_ERROR_CHARS)))
