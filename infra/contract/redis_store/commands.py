"""State changes that the API requests, one method per script."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET

from infra.contract.agent import Limits
from infra.contract.errors import InvalidInput, LimitExceeded, StoreRejected
from infra.contract.event_sizing import truncate
from infra.contract.events import Decision, MessageReceived, RunInput
from infra.contract.files import MAX_INPUTS, Input
from infra.contract.queue import MAX_AHEAD, QueuePlace, QueueTally, Recovery
from infra.contract.redis import Argument, Reply, Script
from infra.contract.redis_store import codec, scripts
from infra.contract.redis_store.reader import is_damage, unreadable_record
from infra.contract.redis_store.run_index import RunIndex
from infra.contract.redis_store.scripts import ScriptCaller
from infra.contract.requests import MAX_MESSAGES, MAX_UNREAD_MESSAGES, GivenAnswer
from infra.contract.runs import RECORD_VERSION, Brief, RunRecord, RunSpec
from infra.contract.states import Outcome, Status
from infra.contract.webhooks import subscribed

_CREATE, _ANNOUNCE, _START, _CANCEL, _RETRY, _MARK_DELETING, _DELETE, _PLACE = map(
    scripts.load, ("create", "announce", "start", "cancel", "retry", "mark_deleting", "delete", "place")
)
_RESUME, _MESSAGE, _INTERRUPT, _CLAIM = map(scripts.load, ("resume", "message", "interrupt", "claim"))


class _RunScripts(ScriptCaller):
    """Caller of scripts that raises RecordUnreadable if the record of the run is the reason for an error."""

    async def call(self, script: Script, args: Mapping[str, Argument] = MappingProxyType({}), **more: Any) -> Reply:
        try:
            return await super().call(script, args, **more)
        except StoreRejected as exc:
            if "run_id" not in more or script is _CREATE or not is_damage(exc):
                raise
            raise unreadable_record(more["run_id"], exc) from exc


class RunCommands(RunIndex):
    """Commands on runs, lists of runs, and all reads."""

    caller = _RunScripts

    async def create(
        self,
        run_id: str,
        user: str,
        spec: RunSpec,
        *,
        start: bool,
        digest: str,
        inputs: Mapping[str, Input] = MappingProxyType({}),
        traceparent: str | None = None,
    ) -> tuple[Outcome, RunRecord | None]:
        """Record a run and, with `start`, queue it. `inputs` are files of other runs, by path.

        OK: created. SAME: the run exists, created by a request with the same `digest`; its present record is returned.
        REFUSED: the run exists, created by another request, or is being deleted; no record is returned.
        """
        spec_json, brief_json = codec.encode(spec), codec.encode(Brief.of(spec))
        reply = await self._scripts.call(
            _CREATE,
            {
                "version": RECORD_VERSION,
                "spec": spec_json,
                "brief": brief_json,
                "digest": digest,
                "priority": spec.priority,
                "max_attempts": spec.max_attempts,
                "start": int(start),
                "delay_ms": int(spec.delay_s * 1000) or "",
                "start_at_ms": _or_empty(spec.start_at_ms),
                "queue_ttl_ms": _or_empty(spec.queue_ttl_s and int(spec.queue_ttl_s * 1000)),
                "inputs": codec.encode_inputs(inputs),
                "traceparent": traceparent or "",
                "hook_url": spec.webhook_url or "",
                "hook_events": subscribed(spec.webhook_events) if spec.webhook_url else "",
                "index_ttl_s": 2 * self._retention_s,
                "unstarted_ttl_s": self._retention_s,
            },
            run_id=run_id,
            user=user,
        )
        outcome = codec.outcome(reply)
        if outcome is Outcome.REFUSED:
            return outcome, None
        if outcome is Outcome.SAME:
            return outcome, await self.get(run_id)
        created_ms = str(codec.items(reply)[1])
        fields = {"id": run_id, "user": user, "spec": spec_json, "brief": brief_json, "created_ms": created_ms}
        fields |= {"status": "queued", "queued_ms": created_ms} if start else {"status": "created"}
        return outcome, codec.decode_record(fields)

    async def announce(
        self, run_id: str, path: str, file: Input, *, max_bytes: int
    ) -> tuple[Outcome, Status | None, Input | None]:
        """Add an input file to a created run, or replace it; return it as stored, none if it was not stored.

        SAME: the same content was announced before, perhaps under another object key, which stays. REFUSED: the run is
        not `created`. Raises LimitExceeded if the run would have more than MAX_INPUTS inputs or `max_bytes`, and
        InvalidInput if one input would be a folder of another one.
        """
        reply = await self._scripts.call(
            _ANNOUNCE,
            {
                "path": path,
                "input": codec.encode(file),
                "max_files": MAX_INPUTS,
                "max_bytes": max_bytes,
            },
            run_id=run_id,
        )
        outcome, status = codec.outcome_and_status(reply)
        rest = codec.items(reply)[2:]
        if outcome in {Outcome.OK, Outcome.SAME}:
            return outcome, status, codec.decode_input(str(rest[0]))
        if status is Status.CREATED and len(rest) == 1:
            raise InvalidInput(f"'{path}' and the input file '{rest[0]}' cannot both exist: one is a folder", "path")
        if status is Status.CREATED:
            raise LimitExceeded(
                f"the run would have {rest[0]} input files with {rest[1]} bytes; "
                f"at most {MAX_INPUTS} files with {max_bytes} bytes are allowed",
                "path",
            )
        return outcome, status, None

    async def start(self, run_id: str, *, inputs_version: int = 0) -> tuple[Outcome, Status | None]:
        """Queue a created run. Its uploaded input files become files of the run in the same step.

        `inputs_version` is the version whose uploads the caller has found complete. SAME: the run is queued or running
        already. REFUSED: it waits or has ended; if it is still `created`, its inputs have another version.
        """
        reply = await self._scripts.call(_START, {"inputs_version": inputs_version}, run_id=run_id)
        return codec.outcome_and_status(reply)

    async def cancel(self, run_id: str) -> tuple[Outcome, Status | None]:
        """Request the end of a run. The status is `cancelled`, or `running` until the worker has stopped the run.

        SAME: cancel was requested before. REFUSED: the run has succeeded or failed.
        """
        reply = await self._scripts.call(_CANCEL, {"retention_s": self._retention_s}, run_id=run_id)
        self._note_event(reply)
        return codec.outcome_and_status(reply)

    async def retry(
        self, run_id: str, *, token: str, inputs_version: int = 0, limits: Limits | None = None
    ) -> tuple[Outcome, Status | None]:
        """Queue a failed or cancelled run again, with fresh attempts and its journal kept.

        `token` names this request. SAME: the request was carried out before. REFUSED: the run has not ended, or has
        succeeded; if it was cancelled before its start, its inputs have another version than `inputs_version`, see
        `start`. `limits` replace those of the run from now on; None leaves them.
        """
        return codec.outcome_and_status(
            await self._scripts.call(
                _RETRY,
                {
                    "token": token,
                    "inputs_version": inputs_version,
                    "limits": "" if limits is None else codec.encode(limits),
                },
                run_id=run_id,
            )
        )

    async def resume(
        self, run_id: str, answers: Mapping[str, GivenAnswer], *, by: str, token: str
    ) -> tuple[Outcome, Status | None, list[str]]:
        """Answer open requests of a waiting run, by their ids; queue the run once no request is open.

        SAME as in `retry`. REFUSED: the run does not wait, or one of these requests is not open, so no answer is taken;
        the ids of those that are open are returned. The record keeps whole answers, the log what fits into an event.
        """
        more: list[Argument] = []
        for request, answer in answers.items():
            more += [
                request,
                codec.encode({"by": by, **msgspec.to_builtins(answer)}),
                _input_event(request, answer, by),
            ]
        reply = await self._scripts.call(_RESUME, {"token": token}, run_id=run_id, more_args=more)
        outcome, status = codec.outcome_and_status(reply)
        return outcome, status, [str(each) for each in codec.items(reply)[2:]]

    async def message(self, run_id: str, text: str, *, by: str, token: str) -> tuple[Outcome, Status | None]:
        """Send a message to a run that has not ended. Its worker reads it before the run can succeed.

        SAME as in `retry`. REFUSED: the run is not queued, running or waiting. Raises LimitExceeded if it has
        MAX_UNREAD_MESSAGES unread ones or MAX_MESSAGES in all.
        """
        data = codec.encode(truncate(MessageReceived(text=text, by=by)))
        reply = await self._scripts.call(
            _MESSAGE,
            {
                "token": token,
                "message": codec.encode({"text": text, "by": by}),
                "data": data,
                "max_unread": MAX_UNREAD_MESSAGES,
                "max_messages": MAX_MESSAGES,
            },
            run_id=run_id,
        )
        outcome, status = codec.outcome_and_status(reply)
        if counts := codec.items(reply)[2:]:
            raise LimitExceeded(
                f"the run has {counts[0]} unread messages, and {counts[1]} in all; at most {MAX_UNREAD_MESSAGES} "
                f"unread ones and {MAX_MESSAGES} in all are allowed"
            )
        return outcome, status

    async def interrupt(self, run_id: str) -> tuple[Outcome, Status | None]:
        """Ask the worker of a queued or running run to stop, and to let it wait. SAME: it was asked, or it waits."""
        return codec.outcome_and_status(await self._scripts.call(_INTERRUPT, run_id=run_id))

    async def place(self, run_id: str) -> QueuePlace | None:
        """Return the place of a run in the queue; None if it is not in the queue, or no longer."""
        ahead, due, alive = (str(item) for item in codec.items(await self._scripts.call(_PLACE, run_id=run_id)))
        if ahead == "-1" and not due:
            return None
        return QueuePlace(
            ahead=min(max(int(ahead), 0), MAX_AHEAD),
            ahead_capped=int(ahead) > MAX_AHEAD,
            begins_ms=int(float(due)) if due else None,
            workers_alive=int(alive),
        )

    async def recover(self) -> Recovery:
        """Do what else the next claim of a worker does, in the same script: requeue or end runs whose lease has
        expired, make delayed runs ready that are due, let requests of waiting runs expire.
        """
        nobody: dict[str, Argument] = {"worker": "", "process": "", "claim_seq": 0, "last_acked": -1, "alive_ms": 0}
        nothing: dict[str, Argument] = {"wanted": 0, "lease_ms": 0, "token_taken": 0}
        args = {**nobody, **nothing, "retention_s": self._retention_s, "version": RECORD_VERSION}
        next_ms, set_aside, counts, *_ = codec.items(await self._scripts.call(_CLAIM, args))
        due_ms, tally = None if next_ms == -1 else int(str(next_ms)), QueueTally.of(codec.pairs(counts))
        return Recovery(due_ms, codec.pairs(set_aside), tally)

    async def mark_deleting(self, run_id: str) -> tuple[Outcome, Status | None]:
        """Mark a run that has ended or was never started as being deleted.

        From then on the run cannot be queued again, and its record names no further objects. REFUSED: it is active.
        """
        return codec.outcome_and_status(await self._scripts.call(_MARK_DELETING, run_id=run_id))

    async def delete(self, run_id: str, user: str) -> tuple[Outcome, Status | None]:
        """Delete the record and the log of a run that is marked as being deleted. REFUSED: it is not marked."""
        return codec.outcome_and_status(await self._scripts.call(_DELETE, run_id=run_id, user=user))


def _input_event(request: str, answer: GivenAnswer, by: str) -> str:
    """Return the data of the event that reports an answer, as JSON."""
    decision: Decision = "answered" if answer.approve is None else "approved" if answer.approve else "denied"
    data = RunInput(
        request=request,
        decision=decision,
        by=by,
        input=UNSET if answer.input is None else answer.input,
        comment=UNSET if answer.comment is None else answer.comment,
    )
    return codec.encode(truncate(data))


def _or_empty(value: float | None) -> Argument:
    return "" if value is None else value
