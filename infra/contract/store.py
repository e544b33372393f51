"""The run store: one typed method for each atomic step. Works over REST and TCP alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import structs

from infra.contract import codec, scripts
from infra.contract.event_parts import cut, whole
from infra.contract.events import RunInput
from infra.contract.keys import DEFAULT_RETENTION_S, Keys
from infra.contract.models import (
    MAX_ERROR_CHARS,
    RECORD_VERSION,
    Brief,
    Claim,
    Held,
    RunError,
    RunRecord,
    RunSpec,
    Segment,
    Writes,
)
from infra.contract.ports import Argument, Redis, Reply
from infra.contract.reader import RunReader
from infra.contract.states import Outcome, Status

_CREATE, _START, _CLAIM, _RENEW, _EMIT, _FINISH, _RELEASE, _WAIT = map(
    scripts.load, ("create", "start", "claim", "renew", "emit", "finish", "release", "wait")
)
_RESUME, _CANCEL, _REDRIVE, _CONDEMN, _DELETE, _TRIM = map(
    scripts.load, ("resume", "cancel", "redrive", "condemn", "delete", "trim")
)


class Lease:
    """What a worker holds of a claimed run: its fence, and the number of its last batch under that fence."""

    def __init__(self, run_id: str, fence: int) -> None:
        self.run_id = run_id
        self.fence = fence
        self.batch = 0


@dataclass(frozen=True)
class Turn:
    """Which claim of a worker's process it is; `heard`, if answers were lost since, is the last one that had one."""

    process: str = ""
    number: int = 0
    heard: int | None = None


@dataclass(frozen=True)
class Claimed:
    """The answer to `claim`. `next_ms`: milliseconds until the next lease expiry or due run; None if there is none.

    `unreadable` are leases of runs whose records make no sense: whoever claims them next would fare no better.
    """

    claims: list[Claim]
    unreadable: list[Lease]
    next_ms: int | None


NO_TURN = Turn()
"""That of a claim which nobody will ask about."""


class RunStore(RunReader):
    """All state changes of runs, each in one guarded script, and all reads.

    Every method raises StoreUnavailable if Redis did not answer in time; the step may then have been done, and
    calling again with the same arguments is safe. `retention_s` is how long a finished run is kept.
    """

    def __init__(self, redis: Redis, keys: Keys | None = None, *, retention_s: int = DEFAULT_RETENTION_S) -> None:
        super().__init__(redis, keys or Keys())
        self._retention_s = retention_s

    async def create(
        self, run_id: str, user: str, spec: RunSpec, *, start: bool, digest: str
    ) -> tuple[Outcome, RunRecord | None]:
        """Record a run and, with `start`, queue it.

        OK: created. SAME: it stood already, created by a request with the same `digest`; the record is what it is
        now. REFUSED: it stood already, created by another request, or is being deleted; no record is given.
        """
        keys = self.keys
        spec_json, brief_json = codec.encode(spec), codec.encode(Brief.of(spec))
        args: list[Argument] = [run_id, user, RECORD_VERSION, spec_json, brief_json, digest, spec.priority]
        args += [spec.max_attempts, int(start), int(spec.delay_s * 1000) or "", _or_empty(spec.start_at_ms)]
        args += [_or_empty(spec.queue_ttl_s and int(spec.queue_ttl_s * 1000))]
        args += [2 * self._retention_s, self._retention_s, keys.control, keys.run_prefix]
        run_keys = [keys.run(run_id), keys.user_runs(user), keys.ready, keys.pending, keys.delayed]
        name, *rest = codec.items(await self._redis.script(_CREATE, run_keys, args))
        outcome = Outcome(str(name))
        if outcome is Outcome.REFUSED:
            return outcome, None
        if outcome is Outcome.SAME:
            return outcome, await self.get(run_id)
        created_ms = str(rest[0])
        fields = {"id": run_id, "user": user, "spec": spec_json, "brief": brief_json, "created_ms": created_ms}
        fields |= {"status": "queued", "queued_ms": created_ms} if start else {"status": "created"}
        return outcome, codec.decode_record(fields)

    async def start(self, run_id: str) -> tuple[Outcome, Status | None]:
        """Queue a created run. SAME: it is queued or running already. REFUSED: it waits or has ended."""
        keys = self.keys
        run_keys = [keys.run(run_id), keys.ready, keys.pending, keys.delayed]
        return _named(await self._redis.script(_START, run_keys, [run_id, keys.control]))

    async def cancel(self, run_id: str) -> tuple[Outcome, Status | None]:
        """Ask for the end of a run. The status is `cancelled`, or `running` until its worker has stopped it.

        SAME: it was asked before. REFUSED: the run has succeeded or failed.
        """
        keys = self.keys
        run_keys = [keys.run(run_id), keys.log(run_id), keys.ready, keys.pending, keys.delayed]
        args: list[Argument] = [run_id, keys.channel(run_id), keys.control, self._retention_s]
        return _named(await self._redis.script(_CANCEL, run_keys, args))

    async def redrive(self, run_id: str, *, token: str) -> tuple[Outcome, Status | None]:
        """Queue a failed or cancelled run again, with fresh attempts and its journal kept.

        `token` names this request: SAME if it was carried out before. REFUSED: the run has not failed.
        """
        keys = self.keys
        run_keys = [keys.run(run_id), keys.log(run_id), keys.ready, keys.pending, keys.dead]
        args = [run_id, keys.channel(run_id), token, keys.control]
        return _named(await self._redis.script(_REDRIVE, run_keys, args))

    async def resume(self, run_id: str, user_input: str, *, token: str) -> tuple[Outcome, Status | None]:
        """Give a waiting run its input and queue it. SAME as in `redrive`. REFUSED: the run does not wait.

        The record keeps all of the input, the log what fits into an event.
        """
        keys = self.keys
        run_keys = [keys.run(run_id), keys.log(run_id), keys.ready, keys.pending]
        data = codec.encode(whole(RunInput(input=user_input)))
        args = [run_id, user_input, data, keys.channel(run_id), token, keys.control]
        return _named(await self._redis.script(_RESUME, run_keys, args))

    async def condemn(self, run_id: str) -> tuple[Outcome, Status | None]:
        """Say that a run that has ended or was never started is to be deleted.

        For all that would queue it again, or name new objects of it, it is GONE from now on. REFUSED: it is under way.
        """
        return _named(await self._redis.script(_CONDEMN, [self.keys.run(run_id)], []))

    async def delete(self, run_id: str, user: str) -> tuple[Outcome, Status | None]:
        """Delete the record and log of a run that was condemned. REFUSED: it was not."""
        keys = self.keys
        run_keys = [keys.run(run_id), keys.log(run_id), keys.user_runs(user), keys.dead]
        return _named(await self._redis.script(_DELETE, run_keys, [run_id, keys.channel(run_id)]))

    async def claim(
        self, worker: str, wanted: int, *, lease_ms: int, taken: bool = False, turn: Turn = NO_TURN
    ) -> Claimed:
        """Recover expired leases, promote due runs, and grant up to `wanted` ready runs, each with a new fence.

        `taken`: the worker has taken a wake token since its last claim. What was granted in turns whose answers were
        lost is made ready again first.
        """
        keys = self.keys
        args: list[Argument] = [worker, wanted, lease_ms, keys.run_prefix, keys.channel_prefix]
        args += [self._retention_s, keys.control, RECORD_VERSION, int(taken)]
        args += [turn.process, turn.number, -1 if turn.heard is None else turn.heard]
        queue = [keys.pending, keys.ready, keys.delayed, keys.leases, keys.dead]
        next_ms, *records = codec.items(await self._redis.script(_CLAIM, queue, args))
        claims, unreadable = [], []
        for fields in map(codec.pairs, records):
            try:
                claims.append(codec.decode_claim(fields))
            except (msgspec.DecodeError, LookupError, ValueError):
                unreadable.append(Lease(fields["id"], int(fields["fence"])))
        return Claimed(claims, unreadable, None if next_ms == -1 else int(str(next_ms)))

    async def renew(self, leases: Sequence[Lease], *, lease_ms: int) -> list[Held]:
        """Prolong the leases of all of a worker's runs at once; the answers stand in the order of `leases`."""
        args: list[Argument] = [lease_ms]
        for lease in leases:
            args += [lease.run_id, lease.fence]
        keys = [self.keys.leases, *(self.keys.run(lease.run_id) for lease in leases)]
        flat = codec.items(await self._redis.script(_RENEW, keys, args))
        return [
            Held(outcome=Outcome(str(name)), cancel=cancel == "1")
            for name, cancel in zip(flat[::2], flat[1::2], strict=True)
        ]

    async def emit(self, lease: Lease, writes: Writes) -> Held:
        """Append events to the log, publish them, and keep the rest in the record, all or nothing.

        The batch's number is `lease.batch + 1`; the caller advances `lease.batch` on OK or SAME, so that an emit
        whose answer was lost is repeated under its own number.
        """
        args: list[Argument] = [lease.fence, lease.batch + 1, len(writes.events), codec.encode_events(writes.events)]
        args += [self.keys.channel(lease.run_id), *codec.encode_kept(writes)]
        run_keys = [self.keys.run(lease.run_id), self.keys.log(lease.run_id)]
        name, cancel, _ = codec.items(await self._redis.script(_EMIT, run_keys, args))
        return Held(outcome=Outcome(str(name)), cancel=cancel == "1")

    async def finish(
        self,
        lease: Lease,
        status: Status,
        writes: Writes,
        *,
        result: Mapping[str, object] | None = None,
        error: RunError | None = None,
    ) -> Outcome:
        """End a run: its last writes (the terminal event last), status, result or error, at once."""
        keys, run_id = self.keys, lease.run_id
        args = [*self._write(lease, writes), status.value, codec.encode(result) if result is not None else ""]
        args += [_kept_error(error), self._retention_s, *codec.encode_kept(writes)]
        run_keys = [keys.run(run_id), keys.log(run_id), keys.leases, keys.dead]
        return _outcome(await self._redis.script(_FINISH, run_keys, args))

    async def release(self, lease: Lease, writes: Writes, *, delay_ms: int, burn: bool) -> Outcome:
        """Give a run back: ready at once or after `delay_ms`. `burn`: whether the attempt counts."""
        keys, run_id = self.keys, lease.run_id
        args = [*self._write(lease, writes), delay_ms, int(burn), keys.control, *codec.encode_kept(writes)]
        run_keys = [keys.run(run_id), keys.log(run_id), keys.leases, keys.ready, keys.pending, keys.delayed]
        return _outcome(await self._redis.script(_RELEASE, run_keys, args))

    async def wait(self, lease: Lease, writes: Writes) -> Outcome:
        """Let a run wait for input: no lease and no worker's slot until `resume` or `cancel`."""
        keys, run_id = self.keys, lease.run_id
        args = [*self._write(lease, writes), *codec.encode_kept(writes)]
        run_keys = [keys.run(run_id), keys.log(run_id), keys.leases]
        return _outcome(await self._redis.script(_WAIT, run_keys, args))

    async def trim(self, run: RunRecord, segments: Sequence[Segment]) -> Outcome:
        """Name all segments of a claimed run's archive, and let Redis forget the events that are in them, but for
        the entry with the last one.

        Also after the run has ended, as long as nobody else has claimed it since: LOST then. GONE if it has been
        deleted or is being deleted, also if its id is another run's by now. A repetition answers OK.
        """
        run_keys = [self.keys.run(run.id), self.keys.log(run.id)]
        args: list[Argument] = [run.fence, run.created_ms, codec.encode(segments), segments[-1].last]
        return _outcome(await self._redis.script(_TRIM, run_keys, args))

    def _write(self, lease: Lease, writes: Writes) -> list[Argument]:
        events_json = codec.encode_events(writes.events)
        channel = self.keys.channel(lease.run_id)
        return [lease.run_id, lease.fence, lease.batch + 1, len(writes.events), events_json, channel]


def _or_empty(value: float | None) -> Argument:
    return "" if value is None else value


def _kept_error(error: RunError | None) -> str:
    if error is None:
        return ""
    return codec.encode(structs.replace(error, message=cut(error.message, MAX_ERROR_CHARS)))


def _outcome(reply: Reply) -> Outcome:
    return Outcome(str(codec.items(reply)[0]))


def _named(reply: Reply) -> tuple[Outcome, Status | None]:
    name, *rest = codec.items(reply)
    return Outcome(str(name)), Status(str(rest[0])) if rest and rest[0] else None
