"""Operations on runs on behalf of a user. Both `POST /agent/execute` and the resource endpoints call them."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from edge_api.http.errors import KeyReused
from edge_api.http.request_models import ForkRun, ListQuery
from edge_api.http.response_models import RunState
from edge_api.inputs_service import InputService
from edge_api.metering import run_created
from edge_api.ports import WorkspaceStore
from edge_api.run_states import gone, refused, request_token, run_state
from edge_api.webhooks_service import WebhookService
from infra.contract import journal
from infra.contract.agent import Limits
from infra.contract.errors import InvalidInput, RecordUnreadable, TransitionRefused
from infra.contract.files import FileEntry, Input
from infra.contract.log import RunLog
from infra.contract.queue import QueuePlace
from infra.contract.redis_store import codec
from infra.contract.redis_store.commands import RunCommands
from infra.contract.runs import Attempt, ForkOf, Page, RunHead, RunRecord, RunSpec
from infra.contract.states import TERMINAL, Outcome, Status
from infra.logging import log

H = TypeVar("H", bound=RunHead)

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class RunService:
    """Operations on the runs of a user.

    Every method raises RunGone both for a missing run and for a run of another user, so that a client cannot find out
    which ids exist.
    """

    def __init__(self, store: RunCommands, workspaces: WorkspaceStore, webhooks: WebhookService) -> None:
        self._store = store
        self._webhooks = webhooks
        self._workspaces = workspaces
        self._inputs = InputService(store, workspaces)

    async def create(
        self, user: str, spec: RunSpec, *, start: bool, key: str | None, traceparent: str | None = None
    ) -> tuple[RunRecord, bool]:
        """Create a run. Return its record, and whether this call created it.

        The idempotency key determines the run's id, so a repeated request finds the run that it created before.
        Raises InvalidInput, WebhooksOff, and KeyReused if the key was used for another request.
        """
        spec.check()
        self.check_webhook(spec)
        digest = _digest(spec, start)
        # A repeated request must succeed even if the source run has been deleted or retried since.
        if spec.source and (earlier := await self._created_before(user, key, digest)):
            return earlier, False
        inputs: Mapping[str, Input] = MappingProxyType({})
        if spec.fork_of:
            run = _not_deleting("fork", await self.get(user, spec.fork_of.run_id))
            inputs = await self._check_fork(run, spec, spec.fork_of.from_step)
        elif spec.continue_of:
            head = _not_deleting("continue", await self.head(user, spec.continue_of))
            if head.status not in TERMINAL:
                raise TransitionRefused("only a run that has ended can be continued", head.status.value)
        return await self._create(user, spec, start, key, digest, inputs, traceparent)

    def check_webhook(self, spec: RunSpec, at: str = "$") -> None:
        """Raise InvalidInput if the URL of a run's webhook may not be called; WebhooksOff."""
        self._webhooks.check(spec, at)

    async def fork(
        self, user: str, run_id: str, wanted: ForkRun, *, key: str | None, traceparent: str | None = None
    ) -> tuple[RunRecord, bool]:
        """Create a run that begins with the results of the first steps of another run; see `create`.

        A repeated request finds the run that it created before, even if the source run has been deleted. Raises
        TransitionRefused if the source run is being deleted.
        """
        digest = _digest(run_id, wanted)
        if earlier := await self._created_before(user, key, digest):
            return earlier, False
        run = _not_deleting("fork", await self.get(user, run_id))
        source = run.spec
        plan = source.plan or []
        plan = plan[: wanted.from_step] + (plan[wanted.from_step :] if wanted.plan is None else wanted.plan)
        spec = RunSpec(
            prompt=wanted.prompt or source.prompt,
            plan=plan or None,
            priority=source.priority,
            max_attempts=source.max_attempts,
            timeout_s=source.timeout_s,
            metadata=source.metadata,
            fork_of=ForkOf(run_id=run_id, from_step=wanted.from_step),
            webhook_url=source.webhook_url,
            webhook_events=source.webhook_events,
        )
        spec.check()
        self.check_webhook(spec)
        inputs = await self._check_fork(run, spec, wanted.from_step)
        return await self._create(user, spec, wanted.start, key, digest, inputs, traceparent)

    async def get(self, user: str, run_id: str) -> RunRecord:
        """Return the complete record of the user's run."""
        return await self._owned(user, run_id, self._store.get)

    async def place(self, run: RunRecord) -> QueuePlace | None:
        """Return why a queued run has not begun; None for other runs, and for one that leaves the queue just now."""
        return await self._store.place(run.id) if run.status is Status.QUEUED else None

    async def head(self, user: str, run_id: str) -> RunHead:
        """Return the user's run without its large fields."""
        return await self._owned(user, run_id, self._store.head)

    async def log(self, user: str, run_id: str) -> RunLog:
        """Return the user's run with the archived segments of its log."""
        return await self._owned(user, run_id, self._store.log)

    async def files(self, user: str, run_id: str) -> dict[str, FileEntry]:
        """Return the files of the user's run by path."""
        await self.head(user, run_id)
        return await self._store.files(run_id)

    async def file(self, user: str, run_id: str, path: str) -> FileEntry:
        """Return one file of the user's run. Raises FileMissing."""
        await self.head(user, run_id)
        return await self._store.file(run_id, path)

    async def attempts(self, user: str, run_id: str) -> list[Attempt]:
        """Return the claims of the user's run, oldest first."""
        await self.head(user, run_id)
        return await self._store.attempts(run_id)

    async def page(self, user: str, query: ListQuery, before: tuple[int, str] | None) -> Page:
        """Return a page of the user's runs, newest first, that begins after the cursor `before`."""
        return await self._store.page(user, limit=query.limit, before=before, wanted=query.wanted)

    async def start(self, user: str, run_id: str) -> RunState:
        """Queue a created run. Raises TransitionRefused if it waits, has ended or is being deleted; InputsMissing."""
        run = _not_deleting("start", await self.head(user, run_id))
        reply = await self._inputs.checked(run, lambda version: self._store.start(run_id, inputs_version=version))
        return run_state("start", run_id, reply, allowed="a run that was created but not started")

    async def announce_upload(self, user: str, run_id: str, path: str, size_bytes: int, sha256: str) -> FileEntry:
        """Announce an input file that the client uploads; return its entry. Raises TransitionRefused if it is started.

        Raises LimitExceeded.
        """
        run = _not_deleting("add an input file to", await self.head(user, run_id))
        return await self._inputs.announce_upload(run, path, size_bytes, sha256)

    async def announce_copy(self, user: str, run_id: str, path: str, from_run: str, source_path: str) -> None:
        """Announce an input file that is copied from another run of the user. Errors as in `announce_upload`.

        Raises FileMissing.
        """
        run = _not_deleting("add an input file to", await self.head(user, run_id))
        source = _not_deleting("copy a file of", await self.head(user, from_run))
        await self._inputs.announce_copy(run, path, source, source_path)

    async def cancel(self, user: str, run_id: str) -> RunState:
        """Request the cancellation of a run. Raises TransitionRefused if it has succeeded or failed."""
        await self.head(user, run_id)
        reply = await self._store.cancel(run_id)
        await self._webhooks.publish()
        return run_state("cancel", run_id, reply, allowed="a run that has not ended", cancelling=True)

    async def retry(self, user: str, run_id: str, limits: Limits | None, *, key: str | None) -> RunState:
        """Queue a failed or cancelled run again. Raises TransitionRefused for any other, or if it is being deleted.

        `limits` that are given replace those of the run. Raises InvalidInput if the run has an explicit plan, and
        InputsMissing if it was cancelled before its start.
        """
        changed = None
        if limits is None:
            run = await self.head(user, run_id)
        else:
            run = record = await self.get(user, run_id)
            changed = _with_limits(record, limits)
        _not_deleting("retry", run)
        token = request_token(user, key)
        reply = await self._inputs.checked(
            run, lambda version: self._store.retry(run_id, token=token, inputs_version=version, limits=changed)
        )
        return run_state("retry", run_id, reply, allowed="a run that has failed or was cancelled")

    async def delete(self, user: str, run_id: str) -> None:
        """Delete a run that has ended or was never started. Raises TransitionRefused for any other."""
        await self.head(user, run_id)
        # Marked first: a retry between the deletion of the files and of the record would run without its files.
        outcome, status = await self._store.mark_deleting(run_id)
        allowed = "a run that has ended or was never started"
        if outcome is Outcome.REFUSED:
            raise refused("delete", status, allowed)
        if outcome is Outcome.GONE:
            raise gone(run_id)
        # Files before record: an interrupted deletion can be repeated, because the record still proves the ownership.
        await self._workspaces.delete_run(user, run_id)
        outcome, status = await self._store.delete(run_id, user)
        if outcome is Outcome.REFUSED:
            raise refused("delete", status, allowed)
        log("run.deleted", run_id=run_id, user=user)

    async def _created_before(self, user: str, key: str | None, digest: str) -> RunRecord | None:
        """Return the run that an identical request with the same key has created; None if there is none."""
        run_id = run_id_of(user, key)
        if key is None or not await self._store.is_made_by(run_id, digest):
            return None
        return await self._store.get(run_id)

    async def _owned(self, user: str, run_id: str, read: Callable[[str], Awaitable[H]]) -> H:
        """Read the user's run. Raises RunGone for a run of another user."""
        try:
            run = await read(_checked(run_id))
        except RecordUnreadable:
            # The record names the owner. If it cannot be read, only the user's index shows the owner.
            if not await self._store.is_listed(user, run_id):
                raise gone(run_id) from None
            raise
        if run.user != user:
            raise gone(run.id)
        return run

    async def _create(
        self,
        user: str,
        spec: RunSpec,
        start: bool,
        key: str | None,
        digest: str,
        inputs: Mapping[str, Input],
        traceparent: str | None,
    ) -> tuple[RunRecord, bool]:
        run_id = run_id_of(user, key)
        outcome, record = await self._store.create(
            run_id, user, spec, start=start, digest=digest, inputs=inputs, traceparent=traceparent
        )
        if record is None:
            raise KeyReused(
                "this Idempotency-Key was used for a request with other content, or its run is being deleted"
            )
        if outcome is Outcome.OK:
            run_created()
            log("run.created", run_id=run_id, user=user, start=start)
        return record, outcome is Outcome.OK

    async def _check_fork(self, run: RunRecord, spec: RunSpec, from_step: int) -> dict[str, Input]:
        """Return the input files of a fork of `run`. Raises TransitionRefused if its inputs may still change.

        Raises InvalidInput if the run has not completed the first steps, or if the new plan has other ones.
        """
        source = run.spec.plan or []
        done = await self._store.journal(run.id)
        # Steps are executed in order, so the first step without a journal entry ends the completed ones.
        completed = next((index for index in range(len(source)) if journal.step_key(index) not in done), len(source))
        if from_step > completed:
            raise InvalidInput(
                f"the run {run.id} has completed {completed} steps; allowed are 0 to {completed}",
                "$.from_step",
            )
        if (spec.plan or [])[:from_step] != source[:from_step]:
            raise InvalidInput(f"the first {from_step} steps must be those of the run {run.id}", "$.plan")
        return await self._inputs.of_fork(run, done)


def run_id_of(user: str, key: str | None) -> str:
    """Return the id of the run that a request with an idempotency key creates; a new one without a key."""
    return f"run_{request_token(user, key)}"


def _digest(*request: object) -> str:
    return hashlib.sha256(codec.encode(request).encode()).hexdigest()


def _checked(run_id: str) -> str:
    # An id becomes part of a Redis key and of a channel's URL, so a malformed one must not reach the store.
    if not _RUN_ID.fullmatch(run_id):
        raise gone(run_id)
    return run_id


def _with_limits(run: RunRecord, limits: Limits) -> Limits:
    """Return the limits of a run with those that are given. Raises InvalidInput if it has an explicit plan."""
    if run.spec.plan is not None:
        raise InvalidInput("'limits' are for runs that a model plans; this run has an explicit plan", "$.limits")
    return (run.limits or run.spec.limits).overridden(limits)


def _not_deleting(action: str, run: H) -> H:
    """Return the run. Raises TransitionRefused if it is being deleted, because its files can vanish at any moment."""
    if run.deleting:
        raise TransitionRefused(
            f"cannot {action} a run that is being deleted; if its deletion was interrupted, delete it again",
            run.status.value,
        )
    return run
