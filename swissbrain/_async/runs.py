"""Methods of the client for runs."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Unpack

from swissbrain import endpoints
from swissbrain._async import batch, transfers
from swissbrain._async.transport import AsyncTransport
from swissbrain._async.wait import wait
from swissbrain.agent import AgentOptions, CallOutcome, Limits, UsageReport
from swissbrain.callbacks import Notify, ignore
from swissbrain.errors import ApiError, ClientError, RunFailed
from swissbrain.models import Attempt, Identity, QueueDepths, Run, RunState, RunSummary, Step
from swissbrain.output_lines import lines_of
from swissbrain.plan import NewRun, Plan

STDERR_LINES = 20
STDERR_EVENTS = 100
"""Events that are read for these lines: a line can be logged in parts, and a progress bar in many states."""


class AsyncRunMethods:
    """Methods for runs: create, watch, change and list them."""

    _api: AsyncTransport
    _patience_s: float
    _notify: Notify

    async def create_run(
        self,
        plan: Plan | None = None,
        *,
        prompt: str | None = None,
        start: bool = True,
        priority: int | None = None,
        max_attempts: int | None = None,
        timeout_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        delay_s: float | None = None,
        start_at_ms: int | None = None,
        queue_ttl_s: float | None = None,
        webhook_url: str | None = None,
        webhook_events: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        **agent: Unpack[AgentOptions],
    ) -> Run:
        """Create a run from a plan, a prompt, or both, and queue it unless `start` is False.

        The run starts after `delay_s`, or at `start_at_ms` (ms since the epoch). If no worker has started it within
        `queue_ttl_s`, it fails with the code `expired`. The options in `agent` are for runs without a plan.

        `webhook_url` is called for the `webhook_events`: `finished`, `failed`, `waiting` (the default), `limit`.

        With the idempotency key of an earlier run of the same content, return that run. Without a key, a new key is
        made for this call, so that a retried request does not create a second run.
        """
        request = endpoints.create_run(
            prompt=prompt,
            plan=plan,
            start=start,
            priority=priority,
            max_attempts=max_attempts,
            timeout_s=timeout_s,
            metadata=metadata,
            delay_s=delay_s,
            start_at_ms=start_at_ms,
            queue_ttl_s=queue_ttl_s,
            webhook_url=webhook_url,
            webhook_events=None if webhook_events is None else [*webhook_events],
            idempotency_key=idempotency_key,
            agent=agent,
        )
        return await self._api.ask(request)

    async def create_many(self, runs: Sequence[NewRun | Mapping[str, Any]]) -> list[Run | ApiError]:
        """Create any number of runs, in batches; return for each, in order, the run or the refusal.

        A mapping has the fields of NewRun. One refused run does not affect the others. If a batch gets no response at
        all, the error is raised, and the batches before it have been created: with an `idempotency_key` for each run,
        the call can be repeated.
        """
        return await batch.create_many(self._api, runs)

    async def run(
        self,
        plan: Plan | None = None,
        *,
        prompt: str | None = None,
        files: Mapping[str, Path | bytes] | None = None,
        wait_s: float | None = None,
        priority: int | None = None,
        max_attempts: int | None = None,
        timeout_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        queue_ttl_s: float | None = None,
        idempotency_key: str | None = None,
        **agent: Unpack[AgentOptions],
    ) -> Run:
        """Create a run, upload its `files` (path in the workspace → content), start it, and return it when succeeded.

        Raises RunFailed if the run fails, is cancelled or waits for input; WaitTimeout if it has not ended after
        `wait_s` seconds. The run continues after a WaitTimeout.
        """
        run = await self.create_run(
            plan,
            prompt=prompt,
            start=not files,
            priority=priority,
            max_attempts=max_attempts,
            timeout_s=timeout_s,
            metadata=metadata,
            queue_ttl_s=queue_ttl_s,
            idempotency_key=idempotency_key,
            **agent,
        )
        # With the idempotency key of an earlier call, the run can be under way already.
        if run.status == "created":
            await self._start_with_files(run.run_id, files or {})
        run = await self.wait(run.run_id, timeout_s=wait_s)
        if run.status != "succeeded":
            raise RunFailed(run, await self._last_errors(run))
        return run

    async def _start_with_files(self, run_id: str, files: Mapping[str, Path | bytes]) -> None:
        try:
            for path, content in files.items():
                await transfers.upload(self._api, run_id, path, content)
            await self.start(run_id)
        except (ClientError, OSError):
            # A run that is never started must not remain. A run that was started despite the error is not deleted.
            with suppress(ClientError):
                await self.delete(run_id)
            raise

    async def _last_errors(self, run: Run) -> list[str]:
        """Return the last lines that the failed step wrote to its error output; none if the API does not answer."""
        step = run.error.step if run.error else None
        if step is None:
            return []
        filters = endpoints.log_filters(step, "stderr", "tool.output")
        try:
            page = await self._api.ask(endpoints.read_log_backwards(run.run_id, STDERR_EVENTS, None, filters))
        except ClientError:
            return []
        return lines_of(page.events)[-STDERR_LINES:]

    async def get_run(self, run_id: str) -> Run:
        """Return one run."""
        return await self._api.ask(endpoints.get_run(run_id))

    async def wait(self, run_id: str, *, timeout_s: float | None = None) -> Run:
        """Return the run as soon as it has ended, or waits for input.

        Raises WaitTimeout, which carries the run, after `timeout_s` seconds; Unreachable if the API has been away for
        the patience of the client.
        """
        return await wait(self._api, run_id, timeout_s, self._patience_s, self._notify)

    async def steps(self, run_id: str) -> list[Step]:
        """Return the steps of a run, or the calls of its agent; `result` is None if it is too large for the list."""
        return (await self._api.ask(endpoints.list_steps(run_id))).steps

    async def call(self, run_id: str, index: int) -> CallOutcome:
        """Return a call of an agent that has ended, counted from 0, with the text that the model has read."""
        return await transfers.read_step(self._api, endpoints.get_call(run_id, index), f"call {index}")

    async def step_result(self, run_id: str, index: int) -> dict[str, Any]:
        """Return the complete result of a completed step, counted from 0, also if it is large."""
        return (await transfers.read_step(self._api, endpoints.get_step(run_id, index), f"step {index}")).result

    async def attempts(self, run_id: str) -> list[Attempt]:
        """Return the attempts of a run, oldest first."""
        return (await self._api.ask(endpoints.list_attempts(run_id))).attempts

    async def runs(
        self,
        *,
        status: str | Sequence[str] | None = None,
        error: str | None = None,
        created_after_ms: int | None = None,
        created_before_ms: int | None = None,
        metadata: Mapping[str, str] | None = None,
        on_unreadable: Notify = ignore,
    ) -> AsyncGenerator[RunSummary, None]:
        """Yield the runs to which all filters apply, newest first, fetched page by page.

        `status`: one status or several. `error`: runs that failed with this code. `metadata`: all pairs must be equal.
        `on_unreadable` is called with the id of each run whose record is damaged, or was written by a newer release.
        """
        filters = endpoints.run_filters(
            status=status,
            error=error,
            created_after_ms=created_after_ms,
            created_before_ms=created_before_ms,
            metadata=metadata,
        )
        cursor: str | None = None
        while True:
            page = await self._api.ask(endpoints.list_runs(filters, cursor))
            for run_id in page.unreadable:
                on_unreadable(run_id)
            for run in page.runs:
                yield run
            cursor = page.next_cursor
            if cursor is None:
                return

    async def fork(
        self,
        run_id: str,
        from_step: int,
        *,
        plan: Plan | None = None,
        prompt: str | None = None,
        start: bool = True,
        idempotency_key: str | None = None,
    ) -> Run:
        """Create a run that takes over the first `from_step` steps of this run, with their results and files.

        Those steps are not executed again. `plan` replaces the steps after them, `prompt` replaces the prompt.
        """
        request = endpoints.fork_run(
            run_id, from_step, plan=plan, prompt=prompt, start=start, idempotency_key=idempotency_key
        )
        return await self._api.ask(request)

    async def start(self, run_id: str) -> RunState:
        """Queue a created run. ApiError.missing lists the announced files that have not been uploaded."""
        return await self._api.ask(endpoints.start_run(run_id))

    async def cancel(self, run_id: str) -> RunState:
        """Cancel a run. A running run stays `running` until its worker has stopped it."""
        return await self._api.ask(endpoints.cancel_run(run_id))

    async def retry(self, run_id: str, *, limits: Limits | Mapping[str, Any] | None = None) -> RunState:
        """Queue a failed or cancelled run again; completed steps are not repeated.

        `limits` replaces those of its limits that it names, such as one that has ended the run.
        """
        return await self._api.ask(endpoints.retry_run(run_id, limits))

    async def resume(self, run_id: str, user_input: str, *, request: str | None = None) -> RunState:
        """Answer a question of a waiting run: the one with the id `request`, or the only open request.

        ApiError.open_requests lists the ids of the open requests if this one is not open, or if several are.
        """
        body = {"user_input": user_input} if request is None else {"answers": {request: {"input": user_input}}}
        return await self._api.ask(endpoints.resume_run(run_id, body))

    async def approve(self, run_id: str, request: str, *, comment: str | None = None) -> RunState:
        """Approve the request with this id; see `Run.waiting` for the open ones. Errors as in `resume`."""
        return await self._decide(run_id, request, True, comment)

    async def deny(self, run_id: str, request: str, *, comment: str | None = None) -> RunState:
        """Deny the request with this id. The run continues without the call. Errors as in `resume`."""
        return await self._decide(run_id, request, False, comment)

    async def say(self, run_id: str, text: str) -> RunState:
        """Send a message to a run that has not ended and has no explicit plan."""
        return await self._api.ask(endpoints.send_message(run_id, text))

    async def interrupt(self, run_id: str) -> RunState:
        """Stop the work on a run without an explicit plan, and let it wait for people; `resume` continues it."""
        return await self._api.ask(endpoints.interrupt_run(run_id))

    async def _decide(self, run_id: str, request: str, approve: bool, comment: str | None) -> RunState:
        answer = {"approve": approve} if comment is None else {"approve": approve, "comment": comment}
        return await self._api.ask(endpoints.resume_run(run_id, {"answers": {request: answer}}))

    async def delete(self, run_id: str) -> None:
        """Delete a run that has ended or was never started: its files, its record, its log."""
        await self._api.delete(endpoints.delete_run(run_id))

    async def usage(self, *, days: int = 30) -> UsageReport:
        """Return the usage of language models in your runs on the last days, in UTC, the present one included."""
        return await self._api.ask(endpoints.get_usage(days))

    async def queue(self) -> QueueDepths:
        """Return the number of runs in each part of the queue, of all users."""
        return await self._api.ask(endpoints.get_queue())

    async def whoami(self) -> Identity:
        """Return the user and the scopes of the token."""
        return await self._api.ask(endpoints.who_am_i())
